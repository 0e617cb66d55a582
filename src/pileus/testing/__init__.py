"""What suites stand on: a clock that tests move, a fresh database, simulated hosts, the soundness harness."""

from pileus.testing.clock import FakeClock
from pileus.testing.database import fresh_database
from pileus.testing.world import World

__all__ = ["FakeClock", "World", "fresh_database"]
