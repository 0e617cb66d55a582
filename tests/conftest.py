"""What holds in every suite."""

from collections.abc import Iterator

import pytest
import structlog

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


@pytest.fixture(scope="session", autouse=True)
def watchdog() -> Iterator[Watchdog]:
    """However this run ends, also by kill -9, nothing that it started or told the watchdog of stays on the machine."""
    with Watchdog() as dog:
        yield dog


@pytest.fixture(autouse=True)
def _no_network_in_transactions() -> Iterator[None]:
    with no_network_in_transactions():
        yield
