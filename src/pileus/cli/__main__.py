"""`python -m pileus.cli` is the `pileus` command."""

from pileus.cli.main import run

run()
