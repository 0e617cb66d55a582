"""Queues: in order within one, side by side between them, never more at one time than allowed."""

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from pileus.agent.queues import Queues
from pileus.wire.messages import Deliver
from pileus.wire.operations import DeleteImage

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def order(operation_id: str, queue: str = "q", host: str = "h") -> Deliver:
    return Deliver(operation_id, host, queue, DeleteImage("i"))


class Work:
    """Work that goes on until the test lets it end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.most = 0
        self._gates: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Condition()

    async def __call__(self, order: Deliver) -> None:
        async with self._changed:
            self.begun.append(order.operation_id)
            self.most = max(self.most, len(self.begun) - len(self.ended))
            self._changed.notify_all()
        try:
            await self.gate(order.operation_id).wait()
        finally:
            self.ended.append(order.operation_id)

    def gate(self, operation_id: str) -> asyncio.Event:
        return self._gates.setdefault(operation_id, asyncio.Event())

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(true)


async def test_one_queue_runs_in_the_order_of_delivery() -> None:
    work = Work()
    queues = Queues(work)
    for number in range(4):
        work.gate(str(number)).set()
        assert queues.put(order(str(number)))
    await work.until(lambda: len(work.begun) == 4)
    assert work.begun == ["0", "1", "2", "3"]
    assert work.most == 1
    await queues.close(grace_seconds=10)


async def test_a_queue_that_waits_holds_up_no_other_and_hosts_have_queues_of_their_own() -> None:
    work = Work()
    queues = Queues(work)
    queues.put(order("stuck"))
    for each in (order("other-queue", queue="r"), order("other-host", host="g")):
        work.gate(each.operation_id).set()
        queues.put(each)
    await work.until(lambda: set(work.begun) == {"stuck", "other-queue", "other-host"})
    assert "stuck" not in work.ended
    work.gate("stuck").set()
    await queues.close(grace_seconds=10)
    assert "stuck" in work.ended


async def test_no_more_run_at_one_time_than_allowed() -> None:
    work = Work()
    queues = Queues(work, side_by_side=3)
    for number in range(10):
        queues.put(order(str(number), queue=str(number)))
    await work.until(lambda: len(work.begun) == 3)
    for number in range(10):
        work.gate(str(number)).set()
    await work.until(lambda: len(work.begun) == 10)
    assert work.most == 3
    await queues.close(grace_seconds=10)


async def test_the_same_delivery_is_not_queued_twice_while_it_waits_or_runs() -> None:
    work = Work()
    queues = Queues(work)
    assert queues.put(order("a"))
    assert queues.put(order("b"))
    await work.until(lambda: work.begun == ["a"])
    assert not queues.put(order("a"))
    assert not queues.put(order("b"))
    for name in ("a", "b"):
        work.gate(name).set()
    await work.until(lambda: work.begun == ["a", "b"])
    await queues.close(grace_seconds=10)
    assert Counter(work.begun) == {"a": 1, "b": 1}


async def test_a_failure_of_ours_does_not_stop_the_queue() -> None:
    done = asyncio.Event()

    async def work(each: Deliver) -> None:
        if each.operation_id == "broken":
            raise OSError("disk full")
        done.set()

    queues = Queues(work)
    queues.put(order("broken"))
    queues.put(order("next"))
    async with asyncio.timeout(10):
        await done.wait()
    await queues.close(grace_seconds=10)


async def test_closing_waits_for_what_runs_and_drops_what_waits() -> None:
    work = Work()
    queues = Queues(work)
    queues.put(order("running"))
    queues.put(order("waiting"))
    await work.until(lambda: work.begun == ["running"])
    closing = asyncio.create_task(queues.close(grace_seconds=10))
    work.gate("running").set()
    await closing
    assert (work.begun, work.ended) == (["running"], ["running"])
    assert not queues.put(order("late"))


async def test_closing_cancels_what_outlives_the_grace() -> None:
    ended: list[str] = []
    begun = asyncio.Event()

    async def work(each: Deliver) -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append(each.operation_id)
            raise

    queues = Queues(work)
    queues.put(order("endless"))
    async with asyncio.timeout(10):
        await begun.wait()
    await queues.close(grace_seconds=0)
    assert ended == ["endless"]
