"""Fixtures for suites on a real database: a `conftest.py` imports those it wants."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.server.db.transaction import Database
from pileus.testing.clock import FakeClock
from pileus.testing.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Database, clock, engine and simulated hosts of one cloud."""
    with World.open(tmp_path) as opened:
        yield opened


@pytest.fixture
def db(world: World) -> Database:
    """The world's database: fresh, with the seed of a new cloud."""
    return world.db


@pytest.fixture
def clock(world: World) -> FakeClock:
    """The world's clock."""
    return world.clock
