"""What holds in every suite."""

from collections.abc import Iterator

import pytest

from pileus.testing.guard import no_network_in_transactions


@pytest.fixture(autouse=True)
def _no_network_in_transactions() -> Iterator[None]:
    with no_network_in_transactions():
        yield
