"""Options of secondary storage."""

import pytest

from pileus.appliance.storage.options import StoreOptions, parse


def test_nothing_given_means_the_defaults() -> None:
    assert parse({}) == StoreOptions()


def test_whole_numbers_are_fine_for_seconds() -> None:
    assert parse({"stall_seconds": 5, "port": 0}).patience.stall_seconds == 5.0


@pytest.mark.parametrize(
    "options", [{"pat": "x"}, {"port": "9443"}, {"port": 70000}, {"stall_seconds": 0}, {"path": 3}, {"port": True}]
)
def test_a_wrong_option_is_named(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        parse(options)
