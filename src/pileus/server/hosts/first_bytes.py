"""One port for both kinds of caller: `POST /enrol` is answered here, anything else goes on as a WebSocket.

The WebSocket library reads GET requests only, so the first bytes decide who reads the rest.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import Event
from websockets.server import ServerProtocol

from pileus.server.hosts.authority import Presented, presented
from pileus.wire.messages import Heartbeat, encode

FIRST_BYTES_SECONDS = 10.0
LARGEST_REQUEST = 64 * 1024
_HEARTBEAT = encode(Heartbeat())


@dataclass(frozen=True)
class Post:
    """A small POST request as it came, with the verified certificate of the peer, if it showed one."""

    path: str
    body: bytes
    address: str
    certificate: bytes | None


@dataclass(frozen=True)
class Reply:
    """Status and JSON body."""

    status: HTTPStatus
    body: bytes = b"{}"


Posted = Callable[[Post], Awaitable[Reply]]


class Doorway:
    """Bounds how many peers may stand in the door, and answers their POST requests.

    Strangers, who show no certificate, have half of the room, and those of one address a sixteenth: however many come,
    hosts that are known get in.
    """

    def __init__(self, posted: Posted, *, most: int = 256) -> None:
        self.posted = posted
        self._most = most
        self._most_strangers = max(1, most // 2)
        self._most_of_one = max(1, most // 16)
        self.waiting: dict[object, str | None] = {}
        """Who stands in the door; of strangers, the address."""
        self._strangers: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()

    def enter(self, who: object, stranger: str | None = None) -> bool:
        """Let somebody stand in the door, a `stranger` from an address; False when too many do."""
        if len(self.waiting) >= self._most:
            return False
        if stranger is not None:
            if self._strangers[stranger] >= self._most_of_one or self._strangers.total() >= self._most_strangers:
                return False
            self._strangers[stranger] += 1
        self.waiting[who] = stranger
        return True

    def leave(self, who: object) -> None:
        """It is somebody we know now, or gone."""
        stranger = self.waiting.pop(who, None)
        if stranger is not None:
            self._strangers[stranger] -= 1
            if not self._strangers[stranger]:
                del self._strangers[stranger]

    def connection(self) -> type[ServerConnection]:
        """The connection class to give to the WebSocket server."""
        doorway = self

        class FirstBytes(HostConnection):
            def __init__(self, protocol: ServerProtocol, *args: Any, **kwargs: Any) -> None:
                super().__init__(protocol, *args, **kwargs)
                self.doorway = doorway

        return FirstBytes


class HostConnection(ServerConnection):
    """A connection that is a POST request or a WebSocket, as its first bytes say.

    `shown` is what the peer's certificate says. `beat` is called with each heartbeat that leaves no host out, before
    the message would wake anybody; when it returns False, the message goes the usual way. Heartbeats are nearly all
    that agents say: this halves their cost.
    """

    doorway: Doorway
    shown: Presented | None = None
    beat: Callable[[], bool] | None = None
    _raw: asyncio.Transport
    _begun = False
    _seen = b""
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("ssl_object")
        self.shown = presented(peer.getpeercert(True) if peer is not None else None)
        if not self.doorway.enter(self, address_of(transport) if self.shown is None else None):
            self._raw.abort()
            return
        self._deadline = self.loop.call_later(FIRST_BYTES_SECONDS, self._raw.abort)

    def data_received(self, data: bytes) -> None:
        if self._begun:
            super().data_received(data)
            return
        self._seen += data
        if len(self._seen) < len(b"POST"):
            return
        if self._deadline is not None:
            self._deadline.cancel()
        if self._seen.startswith(b"POST"):
            request = _Request(self.doorway, self._raw, known=self.shown is not None)
            self.doorway.leave(self)
            self._raw.set_protocol(request)
            request.connection_made(self._raw)
            request.data_received(self._seen)
            return
        self._begun = True
        super().connection_made(self._raw)
        super().data_received(self._seen)
        self._seen = b""

    def process_event(self, event: Event) -> None:
        if not (self.beat is not None and _is_heartbeat(event) and self.beat()):
            super().process_event(event)

    def eof_received(self) -> None:
        if self._begun:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.doorway.leave(self)
        if self._deadline is not None:
            self._deadline.cancel()
        if self._begun:
            super().connection_lost(exc)


def address_of(transport: asyncio.BaseTransport) -> str:
    """The peer's address, or ""."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if name else ""


def _is_heartbeat(event: Event) -> bool:
    return isinstance(event, Frame) and event.data == _HEARTBEAT and event.opcode is Opcode.BINARY and event.fin


class _Request(asyncio.Protocol):
    """Reads one POST request, answers it, closes."""

    def __init__(self, doorway: Doorway, transport: asyncio.Transport, *, known: bool) -> None:
        self._doorway = doorway
        self._transport = transport
        self._seen = b""
        self._stranger = None if known else address_of(transport)
        self._answering = False
        self._deadline = asyncio.get_running_loop().call_later(FIRST_BYTES_SECONDS, transport.abort)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not self._doorway.enter(self, self._stranger):
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self._doorway.leave(self)

    def data_received(self, data: bytes) -> None:
        if self._answering:
            return
        self._seen += data
        if len(self._seen) > LARGEST_REQUEST:
            self._reply(Reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
            return
        head, ended, body = self._seen.partition(b"\r\n\r\n")
        if not ended:
            return
        request = _read_head(head)
        if request is None:
            self._reply(Reply(HTTPStatus.BAD_REQUEST))
            return
        path, length = request
        if length > LARGEST_REQUEST:
            self._reply(Reply(HTTPStatus.REQUEST_ENTITY_TOO_LARGE))
        elif len(body) >= length:
            self._answering = True
            task = asyncio.get_running_loop().create_task(self._answer(path, body[:length]))
            self._doorway.tasks.add(task)
            task.add_done_callback(self._doorway.tasks.discard)

    async def _answer(self, path: str, body: bytes) -> None:
        peer = self._transport.get_extra_info("ssl_object")
        certificate = peer.getpeercert(True) if peer is not None else None
        self._reply(await self._doorway.posted(Post(path, body, address_of(self._transport), certificate)))

    def _reply(self, reply: Reply) -> None:
        self._answering = True
        head = (
            f"HTTP/1.1 {reply.status.value} {reply.status.phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(reply.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        if not self._transport.is_closing():
            self._transport.write(head.encode() + reply.body)
            self._transport.close()


def _read_head(head: bytes) -> tuple[str, int] | None:
    """Path and length of the body; None when it is not a request we read."""
    lines = head.decode("latin-1").split("\r\n")
    match lines[0].split(" "):
        case ["POST", path, "HTTP/1.1" | "HTTP/1.0"]:
            pass
        case _:
            return None
    lengths = [value.strip() for name, _, value in (line.partition(":") for line in lines[1:]) if _length(name)]
    if len(lengths) != 1 or not lengths[0].isascii() or not lengths[0].isdigit() or len(lengths[0]) > 9:
        return None
    return path, int(lengths[0])


def _length(name: str) -> bool:
    return name.lower() == "content-length"
