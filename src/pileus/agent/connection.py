"""The agent's line to the management servers: one WebSocket over mutual TLS for all hosts of this process.

Work goes on while the line is down: answers wait in the journal and are sent again on every new line until the
server says Forget.
"""

import asyncio
import contextlib
import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import msgspec
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from pileus.agent import operations
from pileus.agent.backend import Noticed
from pileus.agent.backoff import Backoff
from pileus.agent.enrolment import Endpoint
from pileus.agent.host import Fleet, Host, Withheld, perform, still_true
from pileus.agent.identity import Identity, is_server
from pileus.agent.journal import Journal
from pileus.agent.queues import Queues
from pileus.wire import PROTOCOL
from pileus.wire.messages import (
    MOST_INTRODUCED,
    Anew,
    Answer,
    AnyFromAgent,
    AnyFromServer,
    Ask,
    Deliver,
    Forget,
    GoAway,
    Happened,
    Heartbeat,
    Hello,
    HostIntro,
    Introduce,
    Introduced,
    LetGo,
    Progress,
    Report,
    Returning,
    VmChange,
    Wanted,
    Welcome,
    decode_from_server,
    encode,
)
from pileus.wire.operations import Reason, Refusal

log = structlog.get_logger(__name__)

LARGEST_FRAME = 32 * 1024 * 1024
WELCOME_SECONDS = 30.0
FIRST_BACKOFF_SECONDS = 0.5
PING_SECONDS = 60.0
SHUTDOWN_GRACE_SECONDS = 10.0
MOST_MISSED = 10_000
"""Changes kept while a line is being introduced; before that, the inventory of the Hello tells of them."""

_jitter = secrets.SystemRandom()


class TurnedAway(Exception):
    """The server will not have these hosts, and trying again cannot help."""


class _LineEnded(Exception):
    """This line is over; another may be tried."""


class Connection:
    """Keeps a line up, runs what is delivered, and tells what happens."""

    def __init__(
        self,
        *,
        servers: Sequence[Endpoint],
        identity: Identity,
        hosts: Mapping[str, Host],
        journal: Journal,
        version: str,
        fleet: Fleet | None = None,
        side_by_side: int = 16,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
    ) -> None:
        self._servers = tuple(servers)
        self._identity = identity
        self._hosts = dict(hosts)
        self._journal = journal
        self._fleet = fleet
        self._version = version
        self._backoff = Backoff(first_backoff_seconds)
        self._queues = Queues(self._work, side_by_side=side_by_side)
        self._line: ClientConnection | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._left_out: set[str] = set()
        self._percents: dict[str, int] = {}
        self._busy: Counter[tuple[str, str]] = Counter()
        self._held: defaultdict[tuple[str, str], list[Happened]] = defaultdict(list)
        self._missed: deque[Happened] = deque(maxlen=MOST_MISSED)
        self._introduced: asyncio.Queue[Introduced] = asyncio.Queue()
        self._wanted: asyncio.Queue[Wanted] = asyncio.Queue()
        self._introducing = asyncio.Lock()
        self._at_once = False
        """We ended the line ourselves to make another."""
        self._pairs = 0
        """How often the certificate has become another."""
        self._more: tuple[HostIntro, ...] = ()
        if fleet is not None:
            fleet.bind(self.noticed)
        self.welcomed = asyncio.Event()
        """Set while a server has welcomed us on the present line."""

    def noticed(self, host: str) -> Noticed:
        """What the backend of `host` calls, from any thread, when a guest changes by itself."""
        loop = asyncio.get_running_loop()

        def tell(name: str, uuid: str, epoch: int, change: VmChange) -> None:
            message = Happened(host, name, uuid, epoch, change)
            with contextlib.suppress(RuntimeError):  # The loop has ended, and the next Hello tells everything.
                loop.call_soon_threadsafe(self._happened, message)

        return tell

    async def renewed(self) -> None:
        """The certificate is another from now on: show it. What runs goes on, and no host is missed meanwhile."""
        for host in list(self._hosts.values()):
            try:
                await host.renewed()
            except Exception as error:
                log.error("certificate.not_shown", host=host.uuid, exc_info=error)
        self._pairs += 1
        if self._line is not None:
            await self._leave_for_another(self._line)

    async def _leave_for_another(self, line: ClientConnection) -> None:
        self._at_once = True
        with contextlib.suppress(ConnectionClosed):
            await line.send(encode(Returning()))
        await line.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Stay connected until `stop` is set. Raises `TurnedAway`. Queued work ends with a grace of 10 seconds."""
        stopping = asyncio.create_task(stop.wait())
        running = asyncio.create_task(self._keep_connected())
        happening = [] if self._fleet is None else [asyncio.create_task(self._fleet.run())]
        try:
            await asyncio.wait((stopping, running), return_when=asyncio.FIRST_COMPLETED)
            await self._queues.close(grace_seconds=SHUTDOWN_GRACE_SECONDS)
        finally:
            stopping.cancel()
            for task in (running, *happening):
                task.cancel()
            results = await asyncio.gather(stopping, running, *happening, return_exceptions=True)
        if isinstance(results[1], Exception):
            raise results[1]

    async def _keep_connected(self) -> None:
        turn = _jitter.randrange(len(self._servers))
        while True:
            server = self._servers[turn % len(self._servers)]
            turn += 1
            absent = False
            try:
                await self._one_line(server)
            except TurnedAway:
                raise
            except ConnectionRefusedError as error:
                absent = True
                if not self._backoff.absences:
                    log.warning("server.absent", server=server.host, port=server.port, reason=str(error))
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed, _LineEnded) as error:
                log.warning("line.ended", server=server.host, port=server.port, reason=str(error) or repr(error))
            except Exception as error:
                log.error("line.failed", server=server.host, port=server.port, exc_info=error)
            if self.welcomed.is_set():
                self._backoff.welcomed()
                self.welcomed.clear()
            if self._at_once:
                self._at_once = False
                turn -= 1
                continue
            await asyncio.sleep(self._backoff.absent() if absent else self._backoff.failed())

    async def _one_line(self, server: Endpoint) -> None:
        pairs = self._pairs
        async with connect(
            server.url,
            ssl=self._identity.client_context(),
            server_hostname=server.host,
            max_size=LARGEST_FRAME,
            compression=None,
            proxy=None,
            # Heartbeats tell the server that we live; only a server that hangs is found by this.
            ping_interval=PING_SECONDS,
            ping_timeout=PING_SECONDS,
            close_timeout=5,
        ) as line:
            if not is_server(line.transport.get_extra_info("ssl_object")):
                raise _LineEnded("the peer's certificate is not a server's")
            welcome = await self._introduce(line)
            if pairs != self._pairs:
                await self._leave_for_another(line)
                return
            tasks = [
                asyncio.create_task(work)
                for work in (
                    self._listen(line),
                    self._heartbeats(line, welcome.heartbeat_seconds),
                    self._reports(line, welcome.report_seconds),
                    self._resend(line),
                    self._introduce_rest(line),
                    *self._of_fleet(line),
                )
            ]
            try:
                while tasks:
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
                        tasks.remove(task)
            finally:
                self._line = None
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _introduce(self, line: ClientConnection) -> Welcome:
        self._missed.clear()
        self._introduced, self._wanted = asyncio.Queue(), asyncio.Queue()
        intros = await self._intros()
        if not intros and self._fleet is None:
            raise _LineEnded("no host of this agent can be introduced")
        first_hosts, self._more = intros[:MOST_INTRODUCED], intros[MOST_INTRODUCED:]
        await line.send(encode(Hello(PROTOCOL, self._version, first_hosts)))
        async with asyncio.timeout(WELCOME_SECONDS):
            first = _decode(await line.recv())
        match first:
            case Welcome():
                if first.protocol != PROTOCOL:
                    raise TurnedAway(f"the server speaks protocol {first.protocol}, this agent {PROTOCOL}")
                self._refused(first.refused)
                self._line = line
                while self._missed:
                    self._say_soon(self._missed.popleft())
                self.welcomed.set()
                log.info("line.up", server=first.server, hosts=len(self._hosts))
                return first
            case GoAway(text=text, retry=retry):
                raise _LineEnded(text) if retry else TurnedAway(text)
            case _:
                raise _LineEnded(f"{type(first).__name__} before Welcome")

    def _of_fleet(self, line: ClientConnection) -> list[Coroutine[Any, Any, None]]:
        if self._fleet is None:
            return []
        return [self._make_wanted(line, self._fleet), self._bring_back(line, self._fleet)]

    async def _make_wanted(self, line: ClientConnection, fleet: Fleet) -> None:
        """Introduce the hosts there are, then make what the server wants, as it is wanted."""
        await self._introduce_more(line, fleet, fleet.uuids)
        log.info("fleet.introduced", hosts=len(fleet.uuids))
        while True:
            await line.send(encode(Ask(fleet.room)))
            wanted = await self._wanted.get()
            fleet.make(wanted.hosts)
            await self._introduce_more(line, fleet, [each.uuid for each in wanted.hosts])

    async def _bring_back(self, line: ClientConnection, fleet: Fleet) -> None:
        """Introduce anew what was out of reach for a while: the server is to hear what is left on it."""
        while True:
            await self._introduce_more(line, fleet, await fleet.returned())

    async def _introduce_more(self, line: ClientConnection, fleet: Fleet, uuids: Sequence[str]) -> None:
        for start in range(0, len(uuids), MOST_INTRODUCED):
            intros = await fleet.intros(uuids[start : start + MOST_INTRODUCED])
            if not intros:
                continue
            fleet.let_go(await self._introduced_on(line, intros))

    async def _introduce_rest(self, line: ClientConnection) -> None:
        """What the Hello had no room for."""
        for start in range(0, len(self._more), MOST_INTRODUCED):
            self._refused(await self._introduced_on(line, self._more[start : start + MOST_INTRODUCED]))

    async def _introduced_on(self, line: ClientConnection, intros: tuple[HostIntro, ...]) -> tuple[str, ...]:
        """Introduce hosts; returns those that the server will not have. One introduction is under way at a time."""
        async with self._introducing:
            await line.send(encode(Introduce(intros)))
            return (await self._introduced.get()).refused

    def _refused(self, uuids: Sequence[str]) -> None:
        for uuid in uuids:
            log.error("host.refused", host=uuid)
            self._hosts.pop(uuid, None)

    async def _intros(self) -> tuple[HostIntro, ...]:
        said = await asyncio.gather(*(host.intro() for host in self._hosts.values()), return_exceptions=True)
        self._left_out.clear()
        intros: list[HostIntro] = []
        for uuid, intro in zip(self._hosts, said, strict=True):
            if isinstance(intro, HostIntro):
                intros.append(intro)
            else:
                # To the server it is not there; once it lives again a new line is made, which introduces it.
                log.error("host.left_out", host=uuid, reason=repr(intro))
                self._left_out.add(uuid)
        return tuple(intros)

    async def _listen(self, line: ClientConnection) -> None:
        async for frame in line:
            message = _decode(frame)
            match message:
                case Deliver():
                    self._queues.put(message)
                case Forget(operation_ids=operation_ids):
                    await self._journal.forget(operation_ids)
                case GoAway(text=text, retry=retry):
                    raise _LineEnded(text) if retry else TurnedAway(text)
                case Introduced():
                    self._introduced.put_nowait(message)
                case Wanted():
                    self._wanted.put_nowait(message)
                case LetGo(hosts=hosts):
                    self._let_go_of(hosts)
                case Anew(hosts=hosts):
                    if self._fleet is not None:
                        self._fleet.come_anew(hosts)
                case Welcome():
                    raise _LineEnded("a second Welcome")
        raise _LineEnded("closed by the server")

    def _let_go_of(self, uuids: Sequence[str]) -> None:
        for uuid in uuids:
            log.info("host.let_go", host=uuid)
            self._hosts.pop(uuid, None)
        if self._fleet is not None:
            self._fleet.let_go(uuids)

    async def _host(self, uuid: str) -> Host | None:
        host = self._hosts.get(uuid)
        if host is None and self._fleet is not None:
            return await self._fleet.host(uuid)
        return host

    async def _work(self, order: Deliver) -> None:
        host = await self._host(order.host)
        if host is None:
            if self._fleet is not None and self._fleet.is_away(order.host):
                return  # Nothing reaches it; it is asked again when it is introduced anew.
            refusal = Refusal(Reason.REJECTED, f"host {order.host} does not live in this agent")
            await self._say(Answer(order.operation_id, order.host, refusal=refusal))
            return
        loop = asyncio.get_running_loop()

        def progressed(percent: int, text: str) -> None:
            message = Progress(order.operation_id, order.host, max(0, min(100, percent)), text)
            loop.call_soon_threadsafe(self._progress, message)

        name = (order.host, operations.subject(order.operation))
        self._busy[name] += 1
        try:
            outcome = await perform(host, self._journal, order, progressed)
            times = 1 if self._fleet is None else await self._fleet.tell(outcome.answer)
            for _ in range(times):
                await self._say(outcome.answer)
        except Withheld as reason:
            log.info("operation.withheld", operation_id=order.operation_id, host=order.host, reason=str(reason))
            return
        finally:
            self._percents.pop(order.operation_id, None)
            self._busy[name] -= 1
            if not self._busy[name]:
                del self._busy[name]
                await self._let_go(host, self._held.pop(name, []))
        refused = outcome.answer.refusal
        log.info(
            "operation.answered",
            operation_id=order.operation_id,
            host=order.host,
            operation=type(order.operation).__name__,
            repeated=outcome.repeated,
            refused=None if refused is None else refused.reason,
        )

    async def _resend(self, line: ClientConnection) -> None:
        for answer in await self._journal.all_unforgotten():
            of_fleet = self._fleet is not None and not self._fleet.is_away(answer.host)
            if not of_fleet and answer.host not in self._hosts:
                continue
            host = await self._host(answer.host) if answer.begun is not None else None
            if host is not None:
                await line.send(encode(await still_true(host, answer)))
            else:
                await line.send(encode(answer))

    async def _heartbeats(self, line: ClientConnection, seconds: float) -> None:
        while True:
            hosts = dict(self._hosts)
            alive = await asyncio.gather(*(_alive(host, seconds) for host in hosts.values()))
            silent = tuple(uuid for uuid, lives in zip(hosts, alive, strict=True) if not lives)
            if self._left_out - set(silent):
                raise _LineEnded("a host that was left out lives again")
            if self._fleet is not None:
                silent += self._fleet.silent()
            await line.send(encode(Heartbeat(silent)))
            await asyncio.sleep(seconds)

    async def _reports(self, line: ClientConnection, seconds: float) -> None:
        while True:
            stats = await asyncio.gather(*(host.stats() for host in self._hosts.values()), return_exceptions=True)
            good = [entry for entry in stats if not isinstance(entry, BaseException)]
            for entry in stats:
                if isinstance(entry, BaseException):
                    log.warning("stats.failed", reason=repr(entry))
            if self._fleet is not None:
                good += await self._fleet.stats()
            for start in range(0, len(good), MOST_INTRODUCED):
                await line.send(encode(Report(tuple(good[start : start + MOST_INTRODUCED]))))
            await asyncio.sleep(seconds)

    def _happened(self, message: Happened) -> None:
        name = (message.host, message.name)
        if name in self._busy:
            # Its start or stop is under way: the server hears the answer first, then what is still true of this.
            self._held[name].append(message)
        elif self._line is None:
            self._missed.append(message)
        else:
            self._say_soon(message)

    async def _let_go(self, host: Host, held: list[Happened]) -> None:
        for message in held:
            ended = message.change in (VmChange.STOPPED, VmChange.CRASHED)
            if not ended or not await host.runs(message.name, message.epoch):
                self._happened(message)

    def _progress(self, message: Progress) -> None:
        if self._percents.get(message.operation_id) == message.percent:
            return  # At most a hundred frames per operation, whatever the backend calls.
        self._percents[message.operation_id] = message.percent
        self._say_soon(message)

    def _say_soon(self, message: AnyFromAgent) -> None:
        task = asyncio.get_running_loop().create_task(self._say(message))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _say(self, message: AnyFromAgent) -> None:
        """Send if there is a line. Answers that are not sent now are in the journal; the rest is said anew."""
        line = self._line
        if line is not None:
            with contextlib.suppress(ConnectionClosed):
                await line.send(encode(message))


async def _alive(host: Host, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await host.alive()
    except Exception as error:
        log.warning("host.silent", host=host.uuid, reason=repr(error))
        return False
    return True


def _decode(frame: str | bytes) -> AnyFromServer:
    if isinstance(frame, str):
        raise _LineEnded("a text frame")
    try:
        message: AnyFromServer = decode_from_server(frame)
    except msgspec.MsgspecError as error:
        raise _LineEnded(f"a frame that cannot be read: {error}") from error
    return message
