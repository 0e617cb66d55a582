"""The journal: the first answer counts, it is there after any death, and it goes when it is forgotten."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.agent.journal import Journal, JournalUnusable
from pileus.wire.messages import Answer
from pileus.wire.operations import Done, PoolFacts, Reason, Refusal
from pileus.wire.places import Isolation, NetworkRef, Traffic

NET = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 7)
OTHER = NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0)


class Wall:
    """A wall clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    yield journal
    journal.close()


def test_the_first_answer_is_returned_for_every_later_delivery(journal: Journal) -> None:
    async def scenario() -> None:
        assert await journal.begin("h", "op") is None
        first = Answer("op", "h", result=PoolFacts(2, 1))
        assert await journal.finish(first) == first
        assert await journal.begin("h", "op") == first
        assert await journal.finish(Answer("op", "h", result=Done())) == first
        assert await journal.begin("h", "op") == first

    asyncio.run(scenario())


def test_hosts_of_one_agent_do_not_see_each_others_entries(journal: Journal) -> None:
    async def scenario() -> None:
        await journal.begin("h1", "op")
        await journal.finish(Answer("op", "h1", result=Done()))
        assert await journal.begin("h2", "op") is None
        assert await journal.unforgotten("h2") == []

    asyncio.run(scenario())


def test_what_was_begun_and_not_answered_is_begun_again_after_a_restart(path: Path) -> None:
    async def scenario() -> None:
        before = Journal(path)
        assert await before.begin("h", "op") is None
        before.close()
        after = Journal(path)
        assert await after.begin("h", "op") is None
        assert await after.unforgotten("h") == []
        after.close()

    asyncio.run(scenario())


def test_forgotten_answers_are_not_sent_again_but_still_answer_duplicates_for_a_while(path: Path) -> None:
    async def scenario() -> None:
        wall = Wall()
        journal = Journal(path, wall_clock=wall, keep_seconds=60)
        answer = Answer("op", "h", refusal=Refusal(Reason.NO_ROOM, "full"))
        await journal.begin("h", "op")
        await journal.finish(answer)
        assert await journal.unforgotten("h") == [answer]
        await journal.forget(("op", "unknown"))
        assert await journal.unforgotten("h") == []
        assert await journal.begin("h", "op") == answer
        wall.now += 61
        await journal.forget(())
        assert await journal.begin("h", "op") is None
        journal.close()

    asyncio.run(scenario())


def test_what_is_under_way_cannot_be_forgotten(journal: Journal) -> None:
    async def scenario() -> None:
        await journal.begin("h", "op")
        await journal.forget(("op",))
        answer = await journal.finish(Answer("op", "h", result=Done()))
        assert await journal.unforgotten("h") == [answer]

    asyncio.run(scenario())


def test_answers_are_sent_again_in_the_order_their_operations_began(path: Path) -> None:
    async def scenario() -> None:
        wall = Wall()
        journal = Journal(path, wall_clock=wall)
        for name in ("c", "a", "b"):
            wall.now += 1
            await journal.begin("h", name)
        for name in ("a", "b", "c"):
            await journal.finish(Answer(name, "h", result=Done()))
        assert [answer.operation_id for answer in await journal.unforgotten("h")] == ["c", "a", "b"]
        journal.close()

    asyncio.run(scenario())


def test_a_fence_only_rises_and_survives_a_restart(path: Path) -> None:
    async def scenario() -> None:
        journal = Journal(path)
        assert await journal.fenced("h", "u") == -1
        for epoch in (3, 5, 4):
            await journal.fence("h", "u", epoch)
        journal.close()
        journal = Journal(path)
        assert await journal.fenced("h", "u") == 5
        assert await journal.fenced("other", "u") == -1
        journal.close()

    asyncio.run(scenario())


def test_noted_networks_add_up_until_they_are_dropped(journal: Journal) -> None:
    async def scenario() -> None:
        await journal.note_networks("h", "vm", (NET,))
        await journal.note_networks("h", "vm", (OTHER, NET))
        await journal.note_networks("h", "vm", ())
        assert await journal.noted_networks("h", "vm") == (NET, OTHER)
        assert await journal.noted_networks("h", "other") == ()
        await journal.drop_networks("h", "vm")
        assert await journal.noted_networks("h", "vm") == ()

    asyncio.run(scenario())


def test_many_tasks_may_use_it_at_once(journal: Journal) -> None:
    async def one(number: int) -> None:
        await journal.begin("h", f"op-{number}")
        await journal.finish(Answer(f"op-{number}", "h", result=PoolFacts(number, number)))

    async def scenario() -> None:
        await asyncio.gather(*(one(number) for number in range(50)))
        assert len(await journal.unforgotten("h")) == 50

    asyncio.run(scenario())


@pytest.mark.parametrize("content", [b"this is not a database, it is a text of some length", b"\x00" * 4096])
def test_a_file_that_is_no_journal_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalUnusable):
        Journal(path)


def test_a_journal_of_another_version_is_refused(path: Path) -> None:
    Journal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(JournalUnusable):
        Journal(path)


def test_a_journal_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalUnusable):
        Journal(tmp_path / "missing" / "journal.db")


WRITER = textwrap.dedent(
    """
    import asyncio, sys
    from pathlib import Path
    from pileus.agent.journal import Journal
    from pileus.wire.messages import Answer
    from pileus.wire.operations import PoolFacts

    async def write():
        journal = Journal(Path(sys.argv[1]))
        for number in range(100000):
            await journal.begin("h", f"op-{number}")
            await journal.finish(Answer(f"op-{number}", "h", result=PoolFacts(number, number)))
            print(number, flush=True)

    asyncio.run(write())
    """
)


@pytest.mark.parametrize("answers", [1, 7, 40])
def test_every_answer_that_was_given_out_is_there_after_kill_9(path: Path, answers: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(answers):
            assert writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        last = answers - 1
        for line in writer.stdout:
            last = int(line)

    async def scenario() -> None:
        journal = Journal(path)
        for number in range(last + 1):
            assert await journal.begin("h", f"op-{number}") == Answer(
                f"op-{number}", "h", result=PoolFacts(number, number)
            )
        journal.close()

    asyncio.run(scenario())
