"""Imports every command, workflow and reconciler, so that their registries are full."""

import importlib
import pkgutil

from pileus.server import reconcilers, workflows
from pileus.server.api import commands


def register_all() -> None:
    """Fill the registries. A module that cannot be imported stops the server: half a cloud is none."""
    for package in (commands, workflows, reconcilers):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
