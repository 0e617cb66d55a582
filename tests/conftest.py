"""What holds in every suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from pileus.sandbox.watchdog import Watchdog
from pileus.testing.guard import no_network_in_transactions

# The default renderer draws every traceback with the variables of each frame: minutes in suites that inject failures.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.KeyValueRenderer(key_order=["event"]),
    ]
)


ROOMS = Path(__file__).parent
GUESTS = {"e2e": 0, "conformance": 1}
"""Suites with real guests, which take longest, in the order in which they begin."""

WITHOUT_GUESTS = {"test_bad_images", "test_clients", "test_farm", "test_farm_kill"}
"""End-to-end tests whose hosts are simulated."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: GUESTS.get(_room(item.path), len(GUESTS)))


class Grouping(LoadScopeScheduling):
    """Several processes take groups of tests in the order of the tests; a test without a group is one of its own."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(ROOMS.parent / nodeid.partition("::")[0]) or nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Grouping:
    """What runs in one process when several do."""
    config.option.loadscopereorder = False
    return Grouping(config, log)


def _group(path: Path) -> str | None:
    """Guests mostly wait, beside whatever uses the rest of the machine; harnesses are spread singly."""
    room = _room(path)
    if room in GUESTS:
        return "simulated" if path.stem in WITHOUT_GUESTS else room
    if room == "workflow":
        return None
    return "databases" if path.name.startswith("test_database_") else path.stem


def _room(path: Path) -> str:
    return path.relative_to(ROOMS).parts[0]


@pytest.fixture(scope="session", autouse=True)
def watchdog() -> Iterator[Watchdog]:
    """However this run ends, also by kill -9, nothing that it started or told the watchdog of stays on the machine."""
    with Watchdog() as dog:
        yield dog


@pytest.fixture(autouse=True)
def _no_network_in_transactions() -> Iterator[None]:
    with no_network_in_transactions():
        yield
