"""Hosts come and go: one at a time in order, many to a transaction, so that a farm of agents is back in seconds.

In order, because a line that ends late must not put out the one that took its place. What one agent sends never
spoils the batch of another: a batch that fails is done again one by one.
"""

import asyncio
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import structlog

from pileus.server.db.transaction import Database, Tx
from pileus.server.hosts import enrolment, fleets, liveness
from pileus.server.hosts.authority import Presented
from pileus.server.hosts.callbacks import Callbacks
from pileus.server.hosts.delivery import Delivery, Line
from pileus.server.hosts.liveness import CHUNK, Change
from pileus.wire.messages import GoAway, HostIntro

RUSH = 20
"""So many lines in a second are a rush."""
GATHER_SECONDS = 0.2
"""How long more of a rush is waited for."""

HEARD_AT_ONCE = 5000
"""Width of the range of ids whose signs of life are written in one transaction."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Admitted:
    """Hosts (UUID to id) that may be on the line, and the id of the fleet it speaks for."""

    hosts: dict[str, int]
    fleet: int | None


@dataclass(eq=False)
class _Coming:
    line: Line
    shown: Presented
    intros: Sequence[HostIntro]
    done: asyncio.Future[Admitted] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(eq=False)
class _Going:
    line: Line
    left: list[int] = field(default_factory=list)
    """Hosts that have no other line, as far as it is not written down yet."""
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(eq=False)
class _Hearing:
    """Write down that the hosts with ids in a range live, and that those have no line which somehow lost it."""

    low: int
    high: int
    silent: frozenset[int]
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


_Item = _Coming | _Going | _Hearing


class Rush:
    """Whether lines come and go so fast that it is worth to wait a moment for more of them."""

    def __init__(self) -> None:
        self._second = 0
        self._count = self._before = 0

    def handled(self, count: int, now: float) -> None:
        """So many lines have come or gone."""
        self._turn(int(now))
        self._count += count

    def is_on(self, now: float) -> bool:
        """In this second or the one before there were at least `RUSH`."""
        self._turn(int(now))
        return max(self._count, self._before) >= RUSH

    def _turn(self, second: int) -> None:
        if second != self._second:
            self._before = self._count if second == self._second + 1 else 0
            self._second, self._count = second, 0


class Arrivals:
    """The one who writes down which hosts have lines to this server."""

    def __init__(self, database: Database, delivery: Delivery, callbacks: Callbacks, *, server: str) -> None:
        self._database = database
        self._delivery = delivery
        self._callbacks = callbacks
        self._server = server
        self.closing = False
        """The server ends: hosts whose lines end are not to blame."""
        self._queue: asyncio.Queue[_Item] = asyncio.Queue()
        self._fleets: dict[int, Line] = {}
        self._held: _Item | None = None
        self._rush = Rush()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; everybody has gone by now."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def come(self, line: Line, shown: Presented, intros: Sequence[HostIntro]) -> Admitted:
        """Hosts want to be on this line. Those that may are Up and attached when this returns."""
        coming = _Coming(line, shown, intros)
        line.came = True
        self._queue.put_nowait(coming)
        return await coming.done

    async def hear(self, silent: frozenset[int]) -> None:
        """All hosts with lines here live, except the silent ones: write it down, range by range."""
        highest = await asyncio.to_thread(self._highest)
        for low in range(0, highest + 1, HEARD_AT_ONCE):
            hearing = _Hearing(low, low + HEARD_AT_ONCE, silent)
            self._queue.put_nowait(hearing)
            await hearing.done

    async def go(self, line: Line) -> None:
        """The line has ended: hosts that have no other are disconnected."""
        if not line.came:
            return
        going = _Going(line)
        self._queue.put_nowait(going)
        await asyncio.shield(going.done)

    async def _work(self) -> None:
        while True:
            batch = await self._batch()
            try:
                await self._do(batch)
            except Exception as error:
                log.warning("arrivals.batch_failed", size=len(batch), exc_info=error)
                for each in batch:
                    await self._do_alone(each)

    async def _batch(self) -> list[_Item]:
        """What is of the same kind at the head of the queue, with some hundreds of hosts at most."""
        first = self._held or await self._queue.get()
        self._held = None
        if self._rush.is_on(time.monotonic()) and _size(first) < CHUNK:
            # One by one, each would cost a transaction of its own.
            await asyncio.sleep(GATHER_SECONDS)
        batch, size = [first], _size(first)
        while not self._queue.empty():
            following = self._queue.get_nowait()
            if type(following) is not type(first) or size + _size(following) > CHUNK:
                self._held = following
                break
            batch.append(following)
            size += _size(following)
        self._rush.handled(len(batch), time.monotonic())
        return batch

    async def _do_alone(self, each: _Item) -> None:
        try:
            await self._do([each])
        except Exception as error:
            if not each.done.done():
                each.done.set_exception(error)

    async def _do(self, batch: list[_Item]) -> None:
        coming = [each for each in batch if isinstance(each, _Coming)]
        if coming:
            with self._delivery.admitting():
                admitted = await asyncio.to_thread(self._admit, coming)
                for each, who in zip(coming, admitted, strict=True):
                    self._attach(each.line, who)
                    if not each.done.done():
                        each.done.set_result(who)
        for item in batch:
            match item:
                case _Going():
                    await self._let_go(item)
                case _Hearing():
                    await asyncio.to_thread(self._hear, item, self._delivery.connected)
                case _Coming():
                    continue
            if not item.done.done():
                item.done.set_result(None)

    def _attach(self, line: Line, who: Admitted) -> None:
        self._delivery.attach(line, who.hosts)
        line.fleet = who.fleet
        if who.fleet is not None:
            older = self._fleets.get(who.fleet)
            self._fleets[who.fleet] = line
            if older is not None and older is not line:
                self._delivery.end_soon(older, GoAway("the fleet has connected anew"))

    async def _let_go(self, going: _Going) -> None:
        going.left += self._delivery.detach(going.line)
        while going.left:
            await asyncio.to_thread(self._leave, going.left[:CHUNK], returning=going.line.returning)
            del going.left[:CHUNK]
        fleet = going.line.fleet
        if fleet is not None and self._fleets.get(fleet) is going.line:
            del self._fleets[fleet]
            await asyncio.to_thread(self._leave_fleet, fleet)

    def _hear(self, what: _Hearing, connected: Set[int]) -> None:
        def hear(tx: Tx) -> None:
            liveness.heard(tx, self._server, low=what.low, high=what.high, silent=what.silent)
            held = liveness.held_by(tx, self._server, low=what.low, high=what.high)
            lost = [host_id for host_id in held if host_id not in connected]
            if lost:
                log.warning("hosts.without_line", hosts=len(lost))
                self._tell(tx, liveness.disconnected(tx, lost[:CHUNK], self._server))

        self._database.run(hear)

    def _admit(self, coming: Sequence[_Coming]) -> list[Admitted]:
        return self._database.run(lambda tx: self._admit_all(tx, coming))

    def _admit_all(self, tx: Tx, coming: Sequence[_Coming]) -> list[Admitted]:
        named = enrolment.accepted_all(tx, [each.shown for each in coming])
        admitted: list[Admitted] = []
        intros: dict[int, HostIntro] = {}
        for each, known in zip(coming, named, strict=True):
            fleet = fleets.counting(tx, each.shown)
            if fleet is not None:
                if each.line.fleet is None:
                    fleets.connected(tx, fleet[0], self._server)
                others = {intro.uuid for intro in each.intros} - set(known)
                known = {**known, **fleets.accepted(tx, fleet[0], others)}
            # The first of two intros of one host counts.
            told = {intro.uuid: intro for intro in reversed(each.intros) if intro.uuid in known}
            admitted.append(Admitted({uuid: known[uuid] for uuid in told}, None if fleet is None else fleet[0]))
            intros.update({known[uuid]: intro for uuid, intro in told.items()})
        if intros:
            facts = {host_id: intro.facts for host_id, intro in intros.items()}
            self._tell(tx, liveness.connected(tx, facts, self._server))
            self._callbacks.on_inventory(tx, list(intros.items()))
        return admitted

    def _highest(self) -> int:
        with self._database.read() as tx:
            return liveness.highest(tx, self._server)

    def _leave(self, host_ids: Sequence[int], *, returning: bool) -> None:
        def leave(tx: Tx) -> None:
            if self.closing or returning:
                liveness.released(tx, self._server, host_ids)
            else:
                self._tell(tx, liveness.disconnected(tx, host_ids, self._server))

        self._database.run(leave)

    def _leave_fleet(self, fleet_id: int) -> None:
        self._database.run(lambda tx: fleets.disconnected(tx, fleet_id, self._server))

    def _tell(self, tx: Tx, changes: list[Change]) -> None:
        if changes:
            self._callbacks.on_state(tx, changes)


def _size(each: _Item) -> int:
    match each:
        case _Coming(intros=intros):
            return len(intros)
        case _Going(line=line):
            return len(line.hosts)
        case _Hearing():
            return CHUNK
