"""Fixtures for suites on a real database: a `conftest.py` imports those it wants.

With `pytest_generate_tests` among them, every test that needs a database runs on each kind of `database.kinds`.
"""

from collections.abc import Iterator

import pytest

from pileus.server.db.transaction import Database
from pileus.testing.clock import FakeClock
from pileus.testing.database import kinds, using
from pileus.testing.world import World


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Once per kind of database, unless the test says on which; without a choice, names of tests stay as they are."""
    named = any("database_kind" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "database_kind" in metafunc.fixturenames and len(kinds()) > 1 and not named:
        metafunc.parametrize("database_kind", kinds(), indirect=True, scope="function")


@pytest.fixture
def database_kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kind of every database that the test makes."""
    kind: str = getattr(request, "param", kinds()[0])
    with using(kind):
        yield kind


@pytest.fixture
def world(database_kind: str) -> Iterator[World]:
    """Database, clock, engine and simulated hosts of one cloud."""
    with World.open() as opened:
        yield opened


@pytest.fixture
def db(world: World) -> Database:
    """The world's database: fresh, with the seed of a new cloud."""
    return world.db


@pytest.fixture
def clock(world: World) -> FakeClock:
    """The world's clock."""
    return world.clock
