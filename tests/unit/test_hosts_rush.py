"""When lines come so fast that more of them are waited for."""

from pileus.server.hosts.arrivals import RUSH, Rush


def test_a_few_lines_a_second_are_no_rush() -> None:
    rush = Rush()
    for number in range(100):
        assert not rush.is_on(number / 10)
        rush.handled(1, number / 10)
    assert not rush.is_on(10.0)


def test_many_in_a_second_are_one_until_a_second_without_them() -> None:
    rush = Rush()
    rush.handled(RUSH - 1, 5.0)
    assert not rush.is_on(5.1)
    rush.handled(1, 5.2)
    assert rush.is_on(5.3)
    assert rush.is_on(6.9)
    assert not rush.is_on(7.0)


def test_a_rush_long_ago_is_over() -> None:
    rush = Rush()
    rush.handled(10 * RUSH, 1.0)
    assert not rush.is_on(100.0)
