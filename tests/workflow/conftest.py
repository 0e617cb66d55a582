"""A real database, a clock that stands still, and the world around them: each test runs on every kind of database."""

import pytest

from pileus.testing.fixtures import clock, database_kind, db, pytest_generate_tests, world

__all__ = ["clock", "database_kind", "db", "pytest_generate_tests", "world"]


@pytest.fixture(autouse=True)
def _on_every_kind(database_kind: str) -> None:
    """The soundness harness opens worlds of its own."""
