"""Guessing tokens is bounded per address, and so is the memory for it."""

from pileus.server.hosts.enrolment import Attempts


class Wall:
    """A clock that a test moves, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_address_waits_until_its_oldest_failure_is_old_enough() -> None:
    wall = Wall()
    attempts = Attempts(wall, most=2, seconds=60)
    attempts.failed("a")
    wall.now = 30
    assert attempts.may_try("a")
    attempts.failed("a")
    assert not attempts.may_try("a")
    assert attempts.may_try("b")
    wall.now = 61
    assert attempts.may_try("a")


def test_addresses_heard_of_longest_ago_are_dropped_first() -> None:
    attempts = Attempts(Wall(), most=1, addresses=2)
    for address in ("a", "b", "a", "c"):
        attempts.failed(address)
    assert [address for address in "abc" if not attempts.may_try(address)] == ["a", "c"]
