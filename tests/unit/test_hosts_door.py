"""Who may stand in the door: however many strangers come, there is room for hosts that are known."""

from pileus.server.hosts.first_bytes import Doorway, Post, Reply


async def posted(_: Post) -> Reply:
    raise AssertionError("nobody posts here")


def test_strangers_of_one_address_have_a_sixteenth_and_all_together_half() -> None:
    door = Doorway(posted, most=64)
    came = [door.enter(("one", number), "192.0.2.1") for number in range(100)]
    assert came.count(True) == 4
    others = [door.enter(("many", number), f"198.51.100.{number}") for number in range(100)]
    assert others.count(True) == 28
    known = [door.enter(("host", number)) for number in range(100)]
    assert known.count(True) == 32
    assert len(door.waiting) == 64


def test_who_leaves_makes_room_once() -> None:
    door = Doorway(posted, most=16)
    assert door.enter("a", "192.0.2.1")
    assert not door.enter("b", "192.0.2.1")
    door.leave("a")
    door.leave("a")
    door.leave("never came")
    assert door.enter("b", "192.0.2.1")
    assert not door.enter("c", "192.0.2.1")
