"""Where agents connect: one TLS port. Without a certificate only `/ca` and `POST /enrol`; with one, the WebSocket.

No frame of an agent can do more than end its own connection. Blocking work runs in threads, never in the loop, and
no transaction is open while anything is awaited.
"""

import asyncio
import contextlib
import functools
import logging
import time
from asyncio import sslproto
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from pileus.server.config import keys, value
from pileus.server.db.transaction import Database, Tx
from pileus.server.hosts import enrolment, liveness, signal
from pileus.server.hosts.arrivals import Admitted, Arrivals
from pileus.server.hosts.authority import Authority, BadRequest, Presented, presented
from pileus.server.hosts.callbacks import Callbacks
from pileus.server.hosts.chatter import WINDOW_SECONDS, Chatter
from pileus.server.hosts.delivery import Delivery, Line
from pileus.server.hosts.first_bytes import Doorway, HostConnection, Post, Reply
from pileus.server.hosts.offers import Offers
from pileus.wire import PROTOCOL
from pileus.wire.messages import (
    MOST_INTRODUCED,
    Answer,
    AnyFromAgent,
    AnyFromServer,
    Ask,
    Enrol,
    Enrolled,
    GoAway,
    Happened,
    Heartbeat,
    Hello,
    HostIntro,
    Introduce,
    Introduced,
    Progress,
    Renew,
    Renewed,
    Report,
    Returning,
    Welcome,
    decode_from_agent,
    encode,
)

log = structlog.get_logger(__name__)

LARGEST_FRAME = 16 * 1024 * 1024
HELLO_SECONDS = 30.0
TLS_BUFFER = 32 * 1024
"""Bytes that a line reads at a time: twice a TLS record."""
MISSED_HEARTBEATS = 3
WATCH_GAP_SWEEPS = 3
"""A farm that did not look for so many sweeps was away: silence counts from when it looks again."""


@dataclass(frozen=True)
class ListenerSettings:
    """Port 0 takes any free one. `names` are the DNS names and addresses under which agents reach this server."""

    server: str
    address: str = "0.0.0.0"  # noqa: S104 (every peer is authenticated, and hosts are elsewhere)
    port: int = 8250
    names: tuple[str, ...] = ("localhost", "127.0.0.1")
    heartbeat_seconds: float = 10.0
    report_seconds: float = 60.0
    down_after_seconds: float | None = None
    """How long a host may be silent; None asks the setting `alert.wait` at every sweep."""
    sweep_seconds: float = 10.0
    write_heard_seconds: float = 60.0
    most_in_the_door: int = 256
    """Peers at one time that were not introduced yet: of those without a certificate half, and few of one address."""
    handshake_seconds: float = 10.0


class Listener:
    """The server's side of all host connections. `start` and `close` it in the event loop it shall live in."""

    def __init__(
        self, database: Database, authority: Authority, settings: ListenerSettings, callbacks: Callbacks | None = None
    ) -> None:
        self._database = database
        self._authority = authority
        self._settings = settings
        self._callbacks = callbacks or Callbacks()
        self.delivery = Delivery(database, self._callbacks)
        self._attempts = enrolment.Attempts(time.monotonic)
        self._doorway = Doorway(self._posted, most=settings.most_in_the_door)
        self._arrivals = Arrivals(database, self.delivery, self._callbacks, server=settings.server)
        self._offers = Offers(database, self.delivery)
        self._chatter = Chatter(log)
        self._server: Server | None = None
        self._looked_at = time.monotonic()
        self._periodic: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The port it listens on."""
        if self._server is None:
            raise RuntimeError("the listener is not started")
        return int(next(iter(self._server.sockets)).getsockname()[1])

    @property
    def trouble(self) -> str:
        """Why no agent can connect, or ""."""
        return "" if self._server is not None and self._server.is_serving() else "agents cannot connect"

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        settings = self._settings
        # TLS reads no more than a record at a time; a buffer of the usual 256 KiB a line would be most of its memory.
        sslproto.SSLProtocol.max_size = TLS_BUFFER
        context = await asyncio.to_thread(self._authority.server_context, self._settings.names)
        await asyncio.to_thread(self._forget_old_lines)
        await self.delivery.start()
        self._arrivals.start()
        self._offers.start()
        self._server = await serve(
            self._session,
            self._settings.address,
            self._settings.port,
            ssl=context,
            ssl_handshake_timeout=settings.handshake_seconds,
            process_request=self._admit,
            create_connection=self._doorway.connection(),
            max_size=LARGEST_FRAME,
            compression=None,
            server_header=None,
            ping_interval=None,  # Heartbeats tell as much.
            close_timeout=5,
            backlog=1024,
            logger=_quiet_logger(),
        )
        self._periodic = [
            asyncio.create_task(_every(seconds, work))
            for seconds, work in (
                (settings.heartbeat_seconds, self._end_quiet_lines),
                (settings.sweep_seconds, self.sweep),
                (settings.write_heard_seconds, self._write_heard),
                (WINDOW_SECONDS, self._sum_up),
            )
        ]

    async def close(self) -> None:
        """Tell the agents to go elsewhere, and end all lines."""
        self._arrivals.closing = True
        for task in self._periodic:
            task.cancel()
        await asyncio.gather(*self._periodic, return_exceptions=True)
        await self._offers.close()
        if self._server is not None:
            # Nobody who is told to go may come back here.
            self._server.server.close()
        await self.delivery.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await self._arrivals.close()
        await asyncio.gather(*self._doorway.tasks, return_exceptions=True)
        self._chatter.sum_up(whole=True)

    async def begin_anew(self) -> None:
        """End all lines and let the agents introduce their hosts again: others may have taken them for lost."""
        await self.delivery.end_all(GoAway("the server was away"))

    # the door

    async def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/ca":
            return _response(HTTPStatus.OK, self._authority.ca_pem.encode(), "application/x-pem-file")
        if request.path != "/agent":
            return _response(HTTPStatus.NOT_FOUND, b"")
        if _shown(connection) is None:
            return _response(HTTPStatus.UNAUTHORIZED, b"a host certificate is needed\n")
        return None

    async def _posted(self, post: Post) -> Reply:
        answer = {"/enrol": self._enrol, "/renew": self._renew}.get(post.path)
        if answer is None:
            return Reply(HTTPStatus.NOT_FOUND)
        if not self._attempts.may_try(post.address):
            return Reply(HTTPStatus.TOO_MANY_REQUESTS)
        try:
            return Reply(HTTPStatus.OK, msgspec.json.encode(await answer(post)))
        except (msgspec.MsgspecError, BadRequest):
            self._attempts.failed(post.address)
            return Reply(HTTPStatus.BAD_REQUEST)
        except enrolment.TooEarly:
            self._attempts.failed(post.address)
            return Reply(HTTPStatus.CONFLICT)
        except enrolment.Denied:
            self._attempts.failed(post.address)
            self._chatter.warning("enrolment.denied", address=post.address, path=post.path)
            return Reply(HTTPStatus.FORBIDDEN)
        except Exception as error:
            log.error("enrolment.failed", address=post.address, path=post.path, exc_info=error)
            return Reply(HTTPStatus.INTERNAL_SERVER_ERROR)

    async def _enrol(self, post: Post) -> Enrolled:
        request = msgspec.json.decode(post.body, type=Enrol)
        shown = presented(post.certificate)
        work = functools.partial(enrolment.redeem, authority=self._authority, request=request, shown=shown)
        enrolled: Enrolled = await asyncio.to_thread(self._database.run, work)
        self._chatter.info("host.enrolled", host=enrolled.host, address=post.address)
        return enrolled

    async def _renew(self, post: Post) -> Renewed:
        request = msgspec.json.decode(post.body, type=Renew)
        shown = presented(post.certificate)
        work = functools.partial(enrolment.renew, authority=self._authority, csr_pem=request.csr_pem, shown=shown)
        certificate = await asyncio.to_thread(self._database.run, work)
        self._chatter.info("certificate.renewed", address=post.address, hosts=len(shown.hosts) if shown else 0)
        return Renewed(certificate, self._authority.ca_pem)

    # a line

    async def _session(self, connection: ServerConnection) -> None:
        async def send(message: AnyFromServer) -> None:
            with contextlib.suppress(ConnectionClosed):
                await connection.send(encode(message))

        async def end(message: GoAway) -> None:
            await _turn_away(connection, message)

        line = Line(send, end)
        try:
            if not await self._introduce(connection, line):
                return
            await self._serve(connection, line)
        except (ConnectionClosed, TimeoutError):
            return
        except Exception as error:
            log.error("line.failed", peer=connection.remote_address, exc_info=error)
        finally:
            await self._arrivals.go(line)
            if line.hosts:
                self._chatter.info("line.ended", hosts=len(line.hosts))

    async def _serve(self, connection: ServerConnection, line: Line) -> None:
        deliverer = asyncio.create_task(self.delivery.deliver(line))
        try:
            await self._listen(connection, line)
        finally:
            deliverer.cancel()
            results = await asyncio.gather(deliverer, return_exceptions=True)
            if isinstance(results[0], Exception) and not isinstance(results[0], ConnectionClosed):
                log.error("line.delivery_failed", exc_info=results[0])

    async def _introduce(self, connection: ServerConnection, line: Line) -> bool:
        async with asyncio.timeout(HELLO_SECONDS):
            first = _decode(await connection.recv())
        shown = _shown(connection)
        if not isinstance(first, Hello) or shown is None or len(first.hosts) > MOST_INTRODUCED:
            await _turn_away(connection, GoAway("a Hello is expected"))
            return False
        if first.protocol != PROTOCOL:
            which = "agent" if first.protocol < PROTOCOL else "server"
            text = f"agent speaks protocol {first.protocol}, server {PROTOCOL}: upgrade the {which}"
            await _turn_away(connection, GoAway(text, retry=False))
            return False
        admitted = await self._arrivals.come(line, shown, first.hosts)
        if not admitted.hosts and admitted.fleet is None:
            await _turn_away(connection, GoAway("none of these hosts is known here", retry=False))
            return False
        self._doorway.leave(connection)
        settings = self._settings
        refused = _refused(first.hosts, admitted)
        line.pulse.heard_at = time.monotonic()
        line.ends_at = shown.ends_at
        await line.send(
            Welcome(PROTOCOL, settings.server, settings.heartbeat_seconds, settings.report_seconds, refused)
        )
        self._chatter.info("line.up", hosts=len(admitted.hosts), refused=len(refused), version=first.version)
        return True

    async def _listen(self, connection: ServerConnection, line: Line) -> None:
        shown = _shown(connection)
        if isinstance(connection, HostConnection):
            connection.beat = line.pulse.beat_whole
        with contextlib.suppress(ConnectionClosed):
            while True:
                message = _decode(await connection.recv())
                line.pulse.heard_at = time.monotonic()
                match message:
                    case Heartbeat(silent=silent):
                        await self._heartbeat(line, silent)
                    case Answer() | Happened() | Report():
                        await self.delivery.received(line, message)
                    case Progress():
                        self.delivery.progressed(line, message)
                    case Introduce(hosts=intros) if shown is not None and len(intros) <= MOST_INTRODUCED:
                        admitted = await self._arrivals.come(line, shown, intros)
                        line.pulse.heard_at = time.monotonic()  # It was we who did not listen.
                        await line.send(Introduced(_refused(intros, admitted)))
                    case Returning():
                        line.returning = True
                    case Ask(room=room) if line.fleet is not None:
                        self._offers.asked(line, room)
                    case _:
                        self._chatter.warning("line.bad_frame", peer=connection.remote_address)
                        await _turn_away(connection, GoAway("a frame that cannot be read"))
                        return

    # signs of life

    async def _heartbeat(self, line: Line, silent: tuple[str, ...]) -> None:
        quiet = [line.hosts[uuid] for uuid in silent if uuid in line.hosts]
        back = line.pulse.beat(quiet, now=time.monotonic())
        if back:
            await self._change(back, liveness.up)

    async def _end_quiet_lines(self) -> None:
        """Lines that say nothing for too long are over, whatever their sockets say, and those of ended certificates."""
        ended_at = self._database.clock.now()
        for line in list(self.delivery.lines):
            if line.ends_at <= ended_at:
                self.delivery.end_soon(line, GoAway("the certificate has ended"))
        now, looked_at = time.monotonic(), self._looked_at
        self._looked_at = now
        if now - looked_at > (MISSED_HEARTBEATS - 1) * self._settings.heartbeat_seconds:
            return  # It was we who were held up: what they said may still wait to be read.
        late = now - MISSED_HEARTBEATS * self._settings.heartbeat_seconds
        for line in list(self.delivery.lines):
            if line.pulse.heard_at < late:
                self.delivery.end_soon(line, GoAway("no heartbeat"))

    async def _sum_up(self) -> None:
        self._chatter.sum_up()

    async def _write_heard(self) -> None:
        silent = {host_id for line in self.delivery.lines for host_id in line.pulse.silent}
        await self._arrivals.hear(frozenset(silent))

    async def sweep(self) -> None:
        """Call hosts Down that gave no sign of life for too long. Runs by itself every few seconds."""
        down_after_seconds = await asyncio.to_thread(self._down_after_seconds)
        silent_since = time.monotonic() - down_after_seconds
        silent = [host_id for line in self.delivery.lines for host_id in line.pulse.late(since=silent_since)]
        await self._change(silent, self._down_if_ours)
        settings = self._settings
        since = await asyncio.to_thread(self._watch)
        silence: dict[str, Any] = {
            "server": settings.server,
            "wait_ms": round(down_after_seconds * 1000),
            "written_ms": round(settings.write_heard_seconds * 1000),
            "since": since,
        }
        # Looked for first, and looked at again in the transaction: they may have come back in between.
        await self._change(
            await asyncio.to_thread(self._read, lambda tx: liveness.not_come_back(tx, since=since)),
            lambda tx, ids: liveness.lost_line(tx, liveness.not_come_back(tx, since=since, among=ids)),
        )
        await self._change(
            await asyncio.to_thread(self._read, lambda tx: liveness.late(tx, **silence)),
            lambda tx, ids: liveness.down(tx, liveness.late(tx, **silence, among=ids)),
        )
        for host_id in await asyncio.to_thread(self._read, lambda tx: liveness.reconnecting(tx, settings.server)):
            signal.announce_reconnect(host_id)

    def _watch(self) -> int:
        gap_ms = round(WATCH_GAP_SWEEPS * self._settings.sweep_seconds * 1000)
        return self._database.run(lambda tx: liveness.watched(tx, gap_ms=gap_ms))

    def _read(self, look: Callable[[Tx], list[int]]) -> list[int]:
        with self._database.read() as tx:
            return look(tx)

    def _down_after_seconds(self) -> float:
        if self._settings.down_after_seconds is not None:
            return self._settings.down_after_seconds
        with self._database.read() as tx:
            return float(value(tx, keys.alert_wait))

    def _down_if_ours(self, tx: Tx, host_ids: Sequence[int]) -> list[liveness.Change]:
        # Silent here: a host that has a line to another server by now may speak there.
        return liveness.down(tx, liveness.still_held(tx, self._settings.server, host_ids))

    async def _change(self, host_ids: Iterable[int], to: Callable[[Tx, Sequence[int]], list[liveness.Change]]) -> None:
        ordered = sorted(host_ids)
        for start in range(0, len(ordered), liveness.CHUNK):
            await asyncio.to_thread(self._change_some, ordered[start : start + liveness.CHUNK], to)

    def _change_some(self, host_ids: Sequence[int], to: Callable[[Tx, Sequence[int]], list[liveness.Change]]) -> None:
        def change(tx: Tx) -> None:
            changes = to(tx, host_ids)
            if changes:
                self._callbacks.on_state(tx, changes)

        self._database.run(change)

    def _forget_old_lines(self) -> None:
        self._database.run(lambda tx: liveness.released(tx, self._settings.server))


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception as error:
            log.error("periodic.failed", work=getattr(work, "__name__", ""), exc_info=error)


def _refused(intros: Sequence[HostIntro], admitted: Admitted) -> tuple[str, ...]:
    return tuple(intro.uuid for intro in intros if intro.uuid not in admitted.hosts)


def _shown(connection: ServerConnection) -> Presented | None:
    return connection.shown if isinstance(connection, HostConnection) else None


def _decode(frame: str | bytes) -> AnyFromAgent | None:
    """The message, or None for anything that is none."""
    if isinstance(frame, str):
        return None
    try:
        message: AnyFromAgent = decode_from_agent(frame)
    except msgspec.MsgspecError:
        return None
    return message


async def _turn_away(connection: ServerConnection, message: GoAway) -> None:
    with contextlib.suppress(ConnectionClosed):
        await connection.send(encode(message))
    await connection.close()


def _response(status: HTTPStatus, body: bytes, kind: str = "text/plain") -> Response:
    headers = Headers({"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"})
    return Response(status.value, status.phrase, headers, body)


def _quiet_logger() -> logging.Logger:
    """The library reports each scanner's half handshake as an error; our own log says what matters."""
    logger = logging.getLogger("pileus.server.hosts.websockets")
    logger.setLevel(logging.CRITICAL)
    return logger
