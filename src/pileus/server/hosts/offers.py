"""Gives simulated hosts that nobody holds to the fleets on this server: those that ask, in equal shares.

Only rows decide (`fleets.claim`), so a farm may offer on several servers at once. A fleet that comes back is first
offered what is its own already.
"""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from pileus.server.db.transaction import Database, Tx
from pileus.server.hosts import fleets, signal
from pileus.server.hosts.delivery import Delivery, Line
from pileus.wire.messages import MOST_INTRODUCED, WantedHost

log = structlog.get_logger(__name__)

POLL_SECONDS = 5.0


class Offers:
    """Runs in the loop of its listener."""

    def __init__(self, database: Database, delivery: Delivery, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._database = database
        self._delivery = delivery
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._ignore: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin to offer."""
        loop = asyncio.get_running_loop()

        def wake(_: int) -> None:
            with contextlib.suppress(RuntimeError):  # The loop has ended, and with it all lines.
                loop.call_soon_threadsafe(self._woken.set)

        self._ignore = signal.listen({signal.About.WANTED: wake})
        self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Offer nothing more."""
        if self._ignore is not None:
            self._ignore()
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def asked(self, line: Line, room: int) -> None:
        """The fleet on this line can take so many hosts more."""
        line.room = max(0, room)
        self._woken.set()

    async def _work(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._offer()
            except Exception as error:
                log.error("offers.failed", exc_info=error)

    async def _offer(self) -> None:
        hungry = [line for line in self._delivery.lines if line.fleet is not None and line.room > 0]
        if not hungry:
            return
        free = await asyncio.to_thread(self._free, len(hungry) * MOST_INTRODUCED)
        share = -(-free // len(hungry))
        for line in sorted(hungry, key=lambda line: len(line.hosts)):
            offer = await asyncio.to_thread(self._next, line, share)
            if offer:
                # Nothing more until these are introduced and it asks again.
                line.room = 0
                line.offer += offer
                line.woken.set()

    def _free(self, most: int) -> int:
        with self._database.read() as tx:
            return fleets.count_wanted(tx, most=most)

    def _next(self, line: Line, share: int) -> list[WantedHost]:
        fleet_id = line.fleet
        if fleet_id is None:
            return []
        with self._database.read() as tx:
            while own := fleets.owned(tx, fleet_id, after=line.offered, limit=MOST_INTRODUCED):
                line.offered = own[-1][0]
                missing = [host for host_id, host in own if host_id not in line.uuids]
                if missing:
                    return missing
        limit = min(line.room, share, MOST_INTRODUCED)
        if limit < 1:
            return []

        def claim(tx: Tx) -> list[WantedHost]:
            return [host for _, host in fleets.claim(tx, fleet_id, limit=limit)]

        return self._database.run(claim)
