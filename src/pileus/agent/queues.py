"""One FIFO per (host, queue): deliveries of one queue run in order, different queues side by side.

An idle queue costs nothing: its worker task ends with its last delivery.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import structlog

from pileus.wire.messages import Deliver

log = structlog.get_logger(__name__)

QueueKey = tuple[str, str]


class Queues:
    """Runs deliveries. At most `side_by_side` of them at one time; more wait for their turn."""

    def __init__(self, work: Callable[[Deliver], Awaitable[None]], *, side_by_side: int = 16) -> None:
        self._work = work
        self._room = asyncio.Semaphore(side_by_side)
        self._waiting: dict[QueueKey, deque[Deliver]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._known: set[tuple[str, str]] = set()
        self._closed = False

    def put(self, order: Deliver) -> bool:
        """Queue a delivery. False when the same one waits or runs already, or when the queues are closed."""
        identity = (order.host, order.operation_id)
        if self._closed or identity in self._known:
            return False
        self._known.add(identity)
        key = (order.host, order.queue)
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(order)
            return True
        self._waiting[key] = deque([order])
        task = asyncio.create_task(self._run(key), name=f"queue {key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def close(self, *, grace_seconds: float) -> None:
        """Take nothing more, let what runs end within the grace, then cancel it. What waits is left undone."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.clear()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _run(self, key: QueueKey) -> None:
        waiting = self._waiting[key]
        try:
            while waiting:
                order = waiting.popleft()
                try:
                    async with self._room:
                        if self._closed:
                            return
                        await self._work(order)
                except Exception as error:
                    # An operation's own failure is an answer; this is ours (a full disk under the journal, say).
                    log.error("delivery.failed", operation_id=order.operation_id, exc_info=error)
                finally:
                    self._known.discard((order.host, order.operation_id))
        finally:
            del self._waiting[key]
