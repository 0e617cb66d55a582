"""`pileus server` and `pileus agent` run a program in the foreground. `pileus token` makes a one-time secret."""

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer


def server(
    config: Annotated[
        Path, typer.Option("--config", "-c", help="The server's TOML file.", exists=True, dir_okay=False)
    ],
) -> None:
    """Run a management server in the foreground; several on one database are a farm."""
    _become("pileus.server", config)


def agent(
    config: Annotated[Path, typer.Option("--config", "-c", help="The agent's TOML file.", exists=True, dir_okay=False)],
) -> None:
    """Run the agent of one or more hosts in the foreground. Guests run on when it ends."""
    _become("pileus.agent", config)


def token() -> None:
    """Make a one-time secret for addHost (as its password) and for the host's agent."""
    typer.echo(secrets.token_urlsafe(32))


def _become(module: str, config: Path) -> None:
    arguments = [sys.executable, "-m", module, "--config", str(config)]
    os.execv(sys.executable, arguments)  # noqa: S606 (our own interpreter and module)
