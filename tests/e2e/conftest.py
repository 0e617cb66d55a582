"""Hosts in namespaces for the end-to-end tests; whatever a test leaves behind fails it."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pileus import sandbox
from pileus.sandbox import SandboxHost, Switch

_numbers = itertools.count(1)


@pytest.fixture
def switch() -> Iterator[Switch]:
    """A switch joined to the root namespace, with a prefix and subnet of its own. Torn down with all on it."""
    sandbox.check()
    made = Switch(f"t{os.getpid() % 100000}x{next(_numbers)}"[:8], sandbox.free_subnet())
    try:
        made.create()
        made.connect_root()
        yield made
    finally:
        sandbox.sweep(made.prefix)
        left = sandbox.leftovers(made.prefix)
    assert left == []


@pytest.fixture
def make_host(switch: Switch, tmp_path: Path) -> Iterator[Callable[[], SandboxHost]]:
    """Power on the next host of the switch: h1, h2, …"""
    made: list[SandboxHost] = []

    def build() -> SandboxHost:
        number = len(made) + 1
        made.append(SandboxHost(f"h{number}", number, switch, tmp_path / "hosts"))
        made[-1].start()
        return made[-1]

    yield build
    for host in made:
        host.stop()


@pytest.fixture
def hosts(make_host: Callable[[], SandboxHost]) -> tuple[SandboxHost, SandboxHost]:
    """Two hosts, powered on."""
    return make_host(), make_host()
