"""A real database, a clock that stands still, and the world around them."""

from api_client import admin, api

from pileus.testing.fixtures import clock, db, world

__all__ = ["admin", "api", "clock", "db", "world"]
