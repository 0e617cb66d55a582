"""What holds in every suite."""

from collections.abc import Iterator

import pytest
import structlog

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


@pytest.fixture(autouse=True)
def _no_network_in_transactions() -> Iterator[None]:
    with no_network_in_transactions():
        yield
