"""Thousands of lines of the log about the same thing become a few and a sum; nothing is left uncounted."""

from typing import Any

import pytest

from pileus.server.hosts.chatter import Chatter


class Log:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, Any]]] = []

    def info(self, event: str, **facts: Any) -> None:
        self.lines.append(("info", event, facts))

    def warning(self, event: str, **facts: Any) -> None:
        self.lines.append(("warning", event, facts))


class Scene:
    def __init__(self) -> None:
        self.now = 100.0
        self.log = Log()
        self.chatter = Chatter(self.log, now=lambda: self.now, most=3, seconds=10)  # type: ignore[arg-type]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_few_are_told_one_by_one(scene: Scene) -> None:
    for number in range(3):
        scene.chatter.info("line.up", hosts=1, version=number)
    scene.now += 60
    scene.chatter.sum_up()
    assert scene.log.lines == [("info", "line.up", {"hosts": 1, "version": number}) for number in range(3)]


def test_a_flood_is_a_few_lines_and_a_sum(scene: Scene) -> None:
    for _ in range(50_000):
        scene.chatter.info("line.up", hosts=2)
    scene.chatter.sum_up()
    assert len(scene.log.lines) == 3
    scene.now += 10
    scene.chatter.sum_up()
    assert scene.log.lines[3:] == [("info", "line.up", {"more": 49_997, "hosts": 99_994, "seconds": 10.0})]
    scene.chatter.sum_up()
    assert len(scene.log.lines) == 4


def test_each_event_is_counted_by_itself_and_keeps_its_level(scene: Scene) -> None:
    for _ in range(5):
        scene.chatter.info("line.up")
        scene.chatter.warning("enrolment.denied", address="192.0.2.1")
    scene.chatter.sum_up(whole=True)
    assert [line for line in scene.log.lines if "more" in line[2]] == [
        ("info", "line.up", {"more": 2, "hosts": 2, "seconds": 0.0}),
        ("warning", "enrolment.denied", {"more": 2, "hosts": 2, "seconds": 0.0}),
    ]


def test_the_next_window_begins_anew_and_ends_the_last(scene: Scene) -> None:
    for _ in range(5):
        scene.chatter.info("line.up")
    scene.now += 11
    scene.chatter.info("line.up")
    assert [facts.get("more") for _, _, facts in scene.log.lines] == [None, None, None, 2, None]
