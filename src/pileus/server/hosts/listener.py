"""Where agents connect: one TLS port. Without a certificate only `/ca` and `POST /enrol`; with one, the WebSocket.

No frame of an agent can do more than end its own connection. Blocking work runs in threads, never in the loop, and
no transaction is open while anything is awaited.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from pileus.server.config import keys, value
from pileus.server.db.transaction import Database, Tx
from pileus.server.hosts import enrolment, liveness
from pileus.server.hosts.authority import Authority, BadRequest, Presented, presented
from pileus.server.hosts.callbacks import Callbacks
from pileus.server.hosts.delivery import Delivery, Line
from pileus.server.hosts.first_bytes import Doorway, Post, Reply
from pileus.wire import PROTOCOL
from pileus.wire.messages import (
    Answer,
    AnyFromAgent,
    AnyFromServer,
    Enrol,
    Enrolled,
    GoAway,
    Happened,
    Heartbeat,
    Hello,
    Progress,
    Report,
    Welcome,
    decode_from_agent,
    encode,
)

log = structlog.get_logger(__name__)

LARGEST_FRAME = 16 * 1024 * 1024
HELLO_SECONDS = 30.0
MISSED_HEARTBEATS = 3


@dataclass(frozen=True)
class ListenerSettings:
    """Port 0 takes any free one. `names` are the DNS names and addresses under which agents reach this server."""

    server: str
    address: str = "0.0.0.0"  # noqa: S104 (every peer is authenticated, and hosts are elsewhere)
    port: int = 8250
    names: tuple[str, ...] = ("localhost", "127.0.0.1")
    heartbeat_seconds: float = 20.0
    report_seconds: float = 60.0
    down_after_seconds: float | None = None
    """How long a host may be silent; None asks the setting `alert.wait` at every sweep."""
    sweep_seconds: float = 10.0
    write_heard_seconds: float = 30.0
    most_in_the_door: int = 256


@dataclass
class _Heard:
    """Signs of life, in seconds of the loop's clock."""

    at: dict[int, float] = field(default_factory=dict)
    unwritten: set[int] = field(default_factory=set)
    quiet: set[int] = field(default_factory=set)


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
        self._heard = _Heard()
        self._changing = asyncio.Lock()
        """Held while a host comes or goes: a line that ends late must not put out the one that took its place."""
        self._server: Server | None = None
        self._closing = False
        self._sweeper: asyncio.Task[None] | None = None

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
        context = await asyncio.to_thread(self._authority.server_context, self._settings.names)
        await asyncio.to_thread(self._forget_old_lines)
        await self.delivery.start()
        self._server = await serve(
            self._session,
            self._settings.address,
            self._settings.port,
            ssl=context,
            ssl_handshake_timeout=10,
            process_request=self._admit,
            create_connection=self._doorway.connection(),
            max_size=LARGEST_FRAME,
            compression=None,
            server_header=None,
            ping_interval=20,
            ping_timeout=20,
            close_timeout=5,
            backlog=128,
            logger=_quiet_logger(),
        )
        self._sweeper = asyncio.create_task(self._sweep_forever())

    async def close(self) -> None:
        """Tell the agents to go elsewhere, and end all lines."""
        self._closing = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
        if self._server is not None:
            # Nobody who is told to go may come back here.
            self._server.server.close()
        await self.delivery.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await asyncio.gather(*self._doorway.tasks, return_exceptions=True)

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
        if post.path != "/enrol":
            return Reply(HTTPStatus.NOT_FOUND)
        if not self._attempts.may_try(post.address):
            return Reply(HTTPStatus.TOO_MANY_REQUESTS)
        try:
            request = msgspec.json.decode(post.body, type=Enrol)
            enrolled = await asyncio.to_thread(self._redeem, request, presented(post.certificate))
        except (msgspec.MsgspecError, BadRequest):
            self._attempts.failed(post.address)
            return Reply(HTTPStatus.BAD_REQUEST)
        except enrolment.Denied:
            self._attempts.failed(post.address)
            log.warning("enrolment.denied", address=post.address)
            return Reply(HTTPStatus.FORBIDDEN)
        except Exception as error:
            log.error("enrolment.failed", address=post.address, exc_info=error)
            return Reply(HTTPStatus.INTERNAL_SERVER_ERROR)
        log.info("host.enrolled", host=enrolled.host, address=post.address)
        return Reply(HTTPStatus.OK, msgspec.json.encode(enrolled))

    def _redeem(self, request: Enrol, shown: Presented | None) -> Enrolled:
        return self._database.run(lambda tx: enrolment.redeem(tx, self._authority, request, shown))

    # a line

    async def _session(self, connection: ServerConnection) -> None:
        try:
            line = await self._introduce(connection)
        except (ConnectionClosed, TimeoutError):
            return
        except Exception as error:
            log.error("line.introduction_failed", peer=connection.remote_address, exc_info=error)
            return
        if line is None:
            return
        deliverer = asyncio.create_task(self.delivery.deliver(line))
        try:
            await self._listen(connection, line)
        finally:
            deliverer.cancel()
            results = await asyncio.gather(deliverer, return_exceptions=True)
            if isinstance(results[0], Exception) and not isinstance(results[0], ConnectionClosed):
                log.error("line.delivery_failed", exc_info=results[0])
            async with self._changing:
                await asyncio.to_thread(self._lost, self.delivery.detach(line))
            log.info("line.ended", hosts=len(line.hosts))

    async def _introduce(self, connection: ServerConnection) -> Line | None:
        async with asyncio.timeout(HELLO_SECONDS):
            first = _decode(await connection.recv())
        shown = _shown(connection)
        if not isinstance(first, Hello) or shown is None:
            await _turn_away(connection, GoAway("a Hello is expected"))
            return None
        if first.protocol != PROTOCOL:
            which = "agent" if first.protocol < PROTOCOL else "server"
            text = f"agent speaks protocol {first.protocol}, server {PROTOCOL}: upgrade the {which}"
            await _turn_away(connection, GoAway(text, retry=False))
            return None

        async def send(message: AnyFromServer) -> None:
            with contextlib.suppress(ConnectionClosed):
                await connection.send(encode(message))

        async def end(message: GoAway) -> None:
            await _turn_away(connection, message)

        async with self._changing:
            hosts = await asyncio.to_thread(self._welcome, shown, first)
            line = Line(hosts, send, end)
            self.delivery.attach(line)
        if not hosts:
            await _turn_away(connection, GoAway("none of these hosts is known here", retry=False))
            return None
        self._doorway.leave(connection)
        self._hear(set(hosts.values()))
        settings = self._settings
        refused = tuple(intro.uuid for intro in first.hosts if intro.uuid not in hosts)
        await send(Welcome(PROTOCOL, settings.server, settings.heartbeat_seconds, settings.report_seconds, refused))
        log.info("line.up", hosts=len(hosts), refused=len(refused), version=first.version)
        return line

    def _welcome(self, shown: Presented, hello: Hello) -> dict[str, int]:
        def welcome(tx: Tx) -> dict[str, int]:
            known = enrolment.accepted(tx, shown)
            hosts: dict[str, int] = {}
            for intro in hello.hosts:
                host_id = known.get(intro.uuid)
                if host_id is None or intro.uuid in hosts:
                    continue
                hosts[intro.uuid] = host_id
                for change in liveness.connected(tx, host_id, self._settings.server, intro.facts):
                    self._callbacks.on_state(tx, change.host_id, change.state)
                self._callbacks.on_inventory(tx, host_id, intro)
            return hosts

        return self._database.run(welcome)

    async def _listen(self, connection: ServerConnection, line: Line) -> None:
        patience = MISSED_HEARTBEATS * self._settings.heartbeat_seconds
        with contextlib.suppress(ConnectionClosed):
            while True:
                try:
                    async with asyncio.timeout(patience):
                        message = _decode(await connection.recv())
                except TimeoutError:
                    await _turn_away(connection, GoAway("no heartbeat"))
                    return
                match message:
                    case Heartbeat(silent=silent):
                        await self._heartbeat(line, set(silent))
                    case Answer() | Happened() | Report():
                        await self.delivery.received(line, message)
                    case Progress():
                        self.delivery.progressed(line, message)
                    case Hello() | None:
                        log.warning("line.bad_frame", peer=connection.remote_address)
                        await _turn_away(connection, GoAway("a frame that cannot be read"))
                        return

    # signs of life

    async def _heartbeat(self, line: Line, silent: set[str]) -> None:
        speaking = {host_id for uuid, host_id in line.hosts.items() if uuid not in silent}
        self._hear(speaking)
        back = speaking & self._heard.quiet
        if back:
            await asyncio.to_thread(self._up, back)
            self._heard.quiet -= back

    def _hear(self, host_ids: set[int]) -> None:
        now = time.monotonic()
        self._heard.at.update(dict.fromkeys(host_ids, now))
        self._heard.unwritten |= host_ids

    async def _sweep_forever(self) -> None:
        written = time.monotonic()
        while True:
            await asyncio.sleep(self._settings.sweep_seconds)
            try:
                if time.monotonic() - written >= self._settings.write_heard_seconds:
                    written = time.monotonic()
                    heard, self._heard.unwritten = self._heard.unwritten, set()
                    await asyncio.to_thread(self._write_heard, heard)
                await self.sweep()
            except Exception as error:
                log.error("sweep.failed", exc_info=error)

    async def sweep(self) -> None:
        """Call hosts Down that gave no sign of life for too long. Runs by itself every few seconds."""
        connected = self.delivery.connected
        down_after_seconds = await asyncio.to_thread(self._down_after_seconds)
        late = time.monotonic() - down_after_seconds
        silent = {host_id for host_id in connected if self._heard.at.get(host_id, 0.0) <= late}
        for host_id in set(self._heard.at) - connected:
            del self._heard.at[host_id]
        self._heard.quiet = (self._heard.quiet | silent) & connected
        await asyncio.to_thread(self._down, down_after_seconds, silent, connected - silent)

    def _write_heard(self, host_ids: set[int]) -> None:
        self._database.run(lambda tx: liveness.heard(tx, host_ids))

    def _down_after_seconds(self) -> float:
        if self._settings.down_after_seconds is not None:
            return self._settings.down_after_seconds
        with self._database.read() as tx:
            return float(value(tx, keys.alert_wait))

    def _down(self, after_seconds: float, silent: set[int], speaking: set[int]) -> None:
        def down(tx: Tx) -> None:
            # Silent here: a host that has a line to another server by now may speak there.
            ours = liveness.held_by(tx, self._settings.server, silent)
            self._tell(tx, liveness.down(tx, wait_ms=round(after_seconds * 1000), silent=ours, speaking=speaking))

        self._database.run(down)

    def _up(self, host_ids: set[int]) -> None:
        def up(tx: Tx) -> None:
            for host_id in sorted(host_ids):
                self._tell(tx, liveness.up(tx, host_id))

        self._database.run(up)

    def _lost(self, host_ids: list[int]) -> None:
        def lost(tx: Tx) -> None:
            if self._closing:
                liveness.released(tx, self._settings.server, host_ids)
                return
            for host_id in sorted(host_ids):
                self._tell(tx, liveness.disconnected(tx, host_id, self._settings.server))

        self._database.run(lost)

    def _forget_old_lines(self) -> None:
        self._database.run(lambda tx: liveness.released(tx, self._settings.server))

    def _tell(self, tx: Tx, changes: list[liveness.Change]) -> None:
        for change in changes:
            self._callbacks.on_state(tx, change.host_id, change.state)


def _shown(connection: ServerConnection) -> Presented | None:
    peer = connection.transport.get_extra_info("ssl_object")
    return presented(peer.getpeercert(True) if peer is not None else None)


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
