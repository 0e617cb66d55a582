"""A real database, a clock that stands still, and the world around them."""

from api_client import admin, api

from pileus.testing.fixtures import clock, database_kind, db, pytest_generate_tests, world

__all__ = ["admin", "api", "clock", "database_kind", "db", "pytest_generate_tests", "world"]
