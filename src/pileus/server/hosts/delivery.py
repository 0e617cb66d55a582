"""Rows of `host_operation` become `Deliver` frames, `Answer` frames become rows.

Everything that comes from hosts goes through one inbox in the order it came, several messages to a transaction.
`Forget` is said after the commit only, so an answer that was not stored is sent again by the agent.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import structlog

from pileus.server.db.transaction import Database, Tx
from pileus.server.hosts import operations, signal
from pileus.server.hosts.authority import NEVER
from pileus.server.hosts.callbacks import Callbacks
from pileus.server.hosts.pulse import Pulse
from pileus.server.meter import LONG_SECONDS, Counter, Histogram, seconds
from pileus.wire.messages import (
    Anew,
    Answer,
    AnyFromServer,
    Deliver,
    Forget,
    GoAway,
    Happened,
    LetGo,
    Progress,
    Report,
    Wanted,
    WantedHost,
)

log = structlog.get_logger(__name__)

DELIVERED = Counter(
    "pileus_host_operations_delivered_total", "Operations sent to hosts, sent again after a reconnect included", "kind"
)
ANSWERED = Counter(
    "pileus_host_operations_answered_total",
    "First answers of hosts to operations: done, or the reason of the refusal",
    "kind",
    "outcome",
)
LATENCY = Histogram(
    "pileus_host_operation_seconds",
    "From the delivery of an operation to its stored answer, over one connection",
    "kind",
    bounds=LONG_SECONDS,
)

Inbound = Answer | Happened | Report

BATCH = 64
INBOX = 1024
SHARE = 2 * BATCH
"""So many messages of one line may wait to be stored."""
PROGRESS_SECONDS = 1.0
POLL_SECONDS = 5.0
MANY = 500
"""More hosts than this are not named in one statement."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An operation on its way: to which host, and since when, in seconds of a steady clock."""

    host_id: int
    at: float


@dataclass(eq=False)
class Line:
    """One agent's connection: its hosts by UUID and by id, and how to talk to it.

    `came` once hosts have asked to be on it; `returning` when it ends only to be made anew at once. It may not live
    longer than the certificate it was made with: until `ends_at`, in ms since the epoch. A line of a fleet has its id,
    how many hosts more it waits for (`room`), and the highest id of those that were its already and were offered to it
    on this line (`offered`).

    `due` hosts may have something to deliver; `delivered` operations wait for an answer since then; `stored` answers
    are to be forgotten, `gone` hosts to be let go, hosts on `offer` to be made by the fleet, `anew` to be introduced
    by it once more. Only the task that
    delivers may wait for the peer, so a slow agent holds up nobody else.
    """

    send: Callable[[AnyFromServer], Awaitable[None]]
    end: Callable[[GoAway], Awaitable[None]]
    hosts: dict[str, int] = field(default_factory=dict)
    uuids: dict[int, str] = field(default_factory=dict)
    came: bool = False
    returning: bool = False
    ends_at: int = NEVER
    fleet: int | None = None
    room: int = 0
    offered: int = 0
    pulse: Pulse = field(default_factory=Pulse)
    due: set[int] = field(default_factory=set)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    delivered: dict[str, Delivered] = field(default_factory=dict)
    stored: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    anew: list[str] = field(default_factory=list)
    offer: list[WantedHost] = field(default_factory=list)
    share: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(SHARE))


class Delivery:
    """Lines of one server, and what passes over them. Belongs to one event loop; `wake` may be called from anywhere."""

    def __init__(self, database: Database, callbacks: Callbacks, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._database = database
        self._callbacks = callbacks
        self.poll_seconds = poll_seconds
        self._lines: dict[int, Line] = {}
        self.lines: set[Line] = set()
        """All lines, those without hosts too."""
        self._inbox: asyncio.Queue[tuple[Line, Inbound]] = asyncio.Queue(INBOX)
        self._progress: dict[str, tuple[int, Progress]] = {}
        self._progressed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ignore: Callable[[], None] | None = None
        self._removed_meanwhile: set[int] | None = None

    async def start(self) -> None:
        """Begin to listen to signals and to work off the inbox."""
        loop = asyncio.get_running_loop()

        def soon(action: Callable[[int], None]) -> Callable[[int], None]:
            def tell(host_id: int) -> None:
                with contextlib.suppress(RuntimeError):  # The loop has ended, and with it all lines.
                    loop.call_soon_threadsafe(action, host_id)

            return tell

        self._ignore = signal.listen(
            {
                signal.About.REQUESTED: soon(self._wake),
                signal.About.REMOVED: soon(self._remove),
                signal.About.RECONNECT: soon(self._reconnect),
                signal.About.FLEET_REMOVED: soon(self._remove_fleet),
            }
        )
        for work in (self._work_off(), self._poll(), self._write_progress()):
            self._spawn(work)

    async def close(self) -> None:
        """End all lines, store what has arrived, stop."""
        if self._ignore is not None:
            self._ignore()
        await self.end_all(GoAway("the server is shutting down"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self._inbox.join()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def end_all(self, message: GoAway) -> None:
        """End every line with the same words."""
        ends = (line.end(message) for line in list(self.lines))
        await asyncio.gather(*ends, return_exceptions=True)

    @property
    def connected(self) -> set[int]:
        """Ids of the hosts that have a line here; a copy."""
        return set(self._lines)

    def holds(self, line: Line, host_id: int) -> bool:
        """Whether the host's present line is this one."""
        return self._lines.get(host_id) is line

    @contextmanager
    def admitting(self) -> Iterator[None]:
        """Hosts are let in and attached within the block: one that is removed meanwhile does not stay on its line."""
        self._removed_meanwhile = set()
        try:
            yield
        finally:
            removed, self._removed_meanwhile = self._removed_meanwhile, None
            for host_id in removed:
                self._remove(host_id)

    def attach(self, line: Line, hosts: Mapping[str, int]) -> None:
        """From now on these hosts are reached over this line; an older line of one of them is ended."""
        self.lines.add(line)
        # A host that is introduced again on the same line may have lost what was on its way to it or from it.
        again = line.uuids.keys() & hosts.values()
        if again:
            line.delivered = {each: order for each, order in line.delivered.items() if order.host_id not in again}
        line.hosts.update(hosts)
        for uuid, host_id in hosts.items():
            line.uuids[host_id] = uuid
            older = self._lines.get(host_id)
            self._lines[host_id] = line
            if older is not None and older is not line:
                self.end_soon(older, GoAway("the host has connected anew"))
        line.due.update(hosts.values())
        line.woken.set()

    def detach(self, line: Line) -> list[int]:
        """The line is gone. Returns the hosts that have no other."""
        self.lines.discard(line)
        gone = [host_id for host_id in line.uuids if self._lines.get(host_id) is line]
        for host_id in gone:
            del self._lines[host_id]
        return gone

    def end_soon(self, line: Line, why: GoAway) -> None:
        """End a line without waiting for it; its agent may connect anew."""
        self._spawn(line.end(why))

    async def deliver(self, line: Line) -> None:
        """Send what waits for the hosts of this line, now and whenever something is asked; runs as long as the line."""
        while True:
            await line.woken.wait()
            line.woken.clear()
            if line.stored:
                stored, line.stored = line.stored, []
                await line.send(Forget(tuple(stored)))
            if line.offer:
                offer, line.offer = line.offer, []
                await line.send(Wanted(tuple(offer)))
            if line.gone:
                gone, line.gone = line.gone, []
                await line.send(LetGo(tuple(gone)))
            if line.anew:
                anew, line.anew = line.anew, []
                await line.send(Anew(tuple(anew)))
            due = {host_id for host_id in line.due if self.holds(line, host_id)}
            line.due.clear()
            for each in await asyncio.to_thread(self._waiting, due):
                uuid = line.uuids.get(each.host_id)
                # What is in `stored` by now was answered while we read.
                known = each.operation_id in line.delivered or each.operation_id in line.stored
                if uuid is not None and not known:
                    line.delivered[each.operation_id] = Delivered(each.host_id, seconds())
                    DELIVERED.add(type(each.operation).__name__)
                    await line.send(Deliver(each.operation_id, uuid, each.queue, each.operation))

    async def received(self, line: Line, message: Inbound) -> None:
        """Take a message of a host; waits while the inbox, or the line's share of it, is full.

        So a flood slows its own line down, and what others say is stored a batch or two later at most.
        """
        await line.share.acquire()
        await self._inbox.put((line, message))

    def progressed(self, line: Line, message: Progress) -> None:
        """Take a progress message; only the newest of each operation is written, once a second."""
        host_id = line.hosts.get(message.host)
        if host_id is not None and message.operation_id in line.delivered:
            self._progress[message.operation_id] = (host_id, message)
            self._progressed.set()

    def _wake(self, host_id: int) -> None:
        line = self._lines.get(host_id)
        if line is not None:
            line.due.add(host_id)
            line.woken.set()

    def _remove(self, host_id: int) -> None:
        if self._removed_meanwhile is not None:
            self._removed_meanwhile.add(host_id)
        line = self._lines.get(host_id)
        if line is None:
            return
        if line.fleet is None:
            # Other hosts of the same agent come back at once; the new Welcome refuses the removed one.
            self.end_soon(line, GoAway("a host was removed"))
            return
        # A fleet holds thousands: only this one is let go, and nothing of it is believed from now on.
        del self._lines[host_id]
        uuid = line.uuids.pop(host_id)
        del line.hosts[uuid]
        line.gone.append(uuid)
        line.woken.set()

    def _reconnect(self, host_id: int) -> None:
        line = self._lines.get(host_id)
        if line is None:
            return
        if line.fleet is None:
            self.end_soon(line, GoAway("the host is asked to connect anew"))
            return
        # The line carries thousands of others, which nobody asked for.
        line.anew.append(line.uuids[host_id])
        line.woken.set()

    def _remove_fleet(self, fleet_id: int) -> None:
        for line in self.lines:
            if line.fleet == fleet_id:
                self.end_soon(line, GoAway("the fleet was removed"))

    def _waiting(self, host_ids: set[int]) -> list[operations.Waiting]:
        if not host_ids:
            return []
        with self._database.read() as tx:
            if len(host_ids) > MANY:
                host_ids = set(operations.hosts_with_waiting(tx)) & host_ids
            found = operations.waiting(tx, host_ids) if host_ids else []
        # A host must not act on what a loss of power could take back.
        self._database.settled()
        return found

    async def _poll(self) -> None:
        """Finds what another server of the farm asked of our hosts."""
        while True:
            await asyncio.sleep(self.poll_seconds)
            try:
                if self._lines:
                    for host_id in await asyncio.to_thread(self._hosts_with_waiting):
                        self._wake(host_id)
            except Exception as error:
                log.error("poll.failed", exc_info=error)

    def _hosts_with_waiting(self) -> list[int]:
        with self._database.read() as tx:
            return operations.hosts_with_waiting(tx)

    async def _work_off(self) -> None:
        while True:
            batch = [await self._inbox.get()]
            while len(batch) < BATCH and not self._inbox.empty():
                batch.append(self._inbox.get_nowait())
            try:
                await self._store(batch)
            except Exception as error:
                log.warning("inbox.batch_failed", size=len(batch), exc_info=error)
                for each in batch:
                    await self._store_alone(each)
            finally:
                for line, _ in batch:
                    line.share.release()
                    self._inbox.task_done()

    async def _store_alone(self, each: tuple[Line, Inbound]) -> None:
        try:
            await self._store([each])
        except Exception as error:
            line, message = each
            with _about(message):
                log.error("inbox.message_failed", message=type(message).__name__, exc_info=error)
            if isinstance(message, Answer):
                # Not forgotten: the next poll delivers it again, and the agent says the same again.
                line.delivered.pop(message.operation_id, None)

    async def _store(self, batch: list[tuple[Line, Inbound]]) -> None:
        await asyncio.to_thread(self._write, batch)
        for line, message in batch:
            if isinstance(message, Answer):
                line.delivered.pop(message.operation_id, None)
                self._progress.pop(message.operation_id, None)
                line.stored.append(message.operation_id)
                line.woken.set()

    def _write(self, batch: list[tuple[Line, Inbound]]) -> None:
        def write(tx: Tx) -> None:
            for line, message in batch:
                match message:
                    case Answer():
                        self._answer(tx, line, message)
                    case Happened(host=uuid):
                        if uuid in line.hosts:
                            self._callbacks.on_happened(tx, line.hosts[uuid], message)
                    case Report(hosts=reports):
                        known = [(line.hosts[each.uuid], each) for each in reports if each.uuid in line.hosts]
                        for start in range(0, len(known), MANY):
                            self._callbacks.on_report(tx, known[start : start + MANY])

        self._database.run(write)

    def _answer(self, tx: Tx, line: Line, answer: Answer) -> None:
        with _about(answer):
            self._record(tx, line, answer)

    def _record(self, tx: Tx, line: Line, answer: Answer) -> None:
        host_id = line.hosts.get(answer.host)
        if host_id is None:
            log.warning("answer.foreign", host=answer.host)
            return
        answered = operations.record(tx, host_id, answer)
        if answered is not None:
            self._callbacks.on_answer(tx, answered)
            sent = line.delivered.get(answer.operation_id)
            tx.after_commit(lambda: _answered(answer, answered, None if sent is None else sent.at))

    async def _write_progress(self) -> None:
        while True:
            await self._progressed.wait()
            self._progressed.clear()
            newest, self._progress = self._progress, {}
            try:
                await asyncio.to_thread(self._write_newest, newest)
            except Exception as error:
                log.error("progress.failed", exc_info=error)
            await asyncio.sleep(PROGRESS_SECONDS)

    def _write_newest(self, newest: dict[str, tuple[int, Progress]]) -> None:
        def write(tx: Tx) -> None:
            for host_id, message in newest.values():
                operations.progress(tx, host_id, message.operation_id, message.percent, message.text)

        self._database.run(write)

    def _spawn(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                log.error("line.task_failed", exc_info=error)

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _about(message: Inbound) -> AbstractContextManager[None]:
    """Lines about an answer bear the job that asked, and which of its operations it was."""
    if not isinstance(message, Answer):
        return contextlib.nullcontext()
    bound: dict[str, str] = {"operation_id": message.operation_id}
    job = operations.job_of(message.operation_id)
    return structlog.contextvars.bound_contextvars(**bound, **({"job": job} if job else {}))


def _answered(answer: Answer, answered: operations.HostOperation, sent_at: float | None) -> None:
    outcome = "done" if answered.refusal is None else str(answered.refusal.reason)
    ANSWERED.add(answered.kind, outcome)
    # What a refusal says in words is for the job to tell; here it might be anything.
    with _about(answer):
        log.info("operation.answered", kind=answered.kind, outcome=outcome, host=answer.host)
    if sent_at is not None:
        LATENCY.observe(seconds() - sent_at, answered.kind)
