"""A real database, a clock that stands still, and the world around them."""

from pileus.testing.fixtures import clock, db, world

__all__ = ["clock", "db", "world"]
