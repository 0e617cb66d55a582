"""The smallest HTTP server that guests need: GET and HEAD, one request a connection, bounded in every way.

Guests are not trusted: a request has a size and a time, and one guest cannot take all connections.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from pileus.appliance.router.errors import StepFailed

REQUEST_SECONDS = 10.0
MAX_LINE_BYTES = 8192
MAX_HEADERS = 64
MAX_UNREAD_BYTES = 256 * 1024
MAX_CONNECTIONS_OF_ONE = 16

_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Service Unavailable"}


@dataclass(frozen=True)
class Request:
    """`source` is the peer's address; header names are in lower case."""

    source: str
    path: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Response:
    """An answer with its body, always given its length."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class _BadRequest(Exception):
    """The peer does not speak HTTP, or asks for what is never there; carries the status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Server:
    """Answers on one port of one address at a time."""

    def __init__(self, port: int, answer: Callable[[Request], Response]) -> None:
        self._port = port
        self._answer = answer
        self._ip = ""
        self._server: asyncio.Server | None = None
        self._open: Counter[str] = Counter()

    async def listen(self, ip: str) -> None:
        """Answer on `ip`, nowhere when it is ""; nothing happens when it is so already. Raises StepFailed."""
        if ip == self._ip:
            return
        if self._server is not None:
            self._server.close()
            self._server = None
            self._ip = ""
        if not ip:
            return
        try:
            self._server = await asyncio.start_server(self._serve, ip, self._port, limit=MAX_LINE_BYTES)
        except OSError as error:
            raise StepFailed(f"listening on {ip}:{self._port}: {error.strerror}") from error
        self._ip = ip

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        source = str(peer[0]) if peer else ""
        self._open[source] += 1
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                busy = self._open[source] > MAX_CONNECTIONS_OF_ONE
                await self._exchange(reader, writer, source, busy=busy)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            # The guest is slow, or gone; it asks again when it wants something.
            writer.transport.abort()
        finally:
            self._open[source] -= 1
            if not self._open[source]:
                del self._open[source]
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str, *, busy: bool
    ) -> None:
        head_only = False
        try:
            if busy:
                raise _BadRequest(503)
            method, path, headers = await _read(reader)
            head_only = method == "HEAD"
            response = self._answer(Request(source, path, headers))
        except _BadRequest as bad:
            response = Response(bad.status, b"")
        lines = (
            f"HTTP/1.1 {response.status} {_PHRASES[response.status]}",
            f"Content-Type: {response.content_type}",
            f"Content-Length: {len(response.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        )
        writer.write("\r\n".join([*lines, "", ""]).encode("ascii"))
        if not head_only:
            writer.write(response.body)
        await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()
        # Closing on what is unread would reset the connection and take the answer along.
        left = MAX_UNREAD_BYTES
        while left > 0 and (data := await reader.read(MAX_LINE_BYTES)):
            left -= len(data)


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]]:
    """Method, path without query, and headers of a request."""
    words = (await _line(reader)).split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _BadRequest(400)
    method, target, _ = words
    if method not in ("GET", "HEAD"):
        raise _BadRequest(405)
    headers: dict[str, str] = {}
    for _ in range(MAX_HEADERS):
        line = await _line(reader)
        if not line:
            return method, target.partition("?")[0], headers
        name, colon, value = line.partition(":")
        if not colon:
            raise _BadRequest(400)
        headers[name.strip().lower()] = value.strip()
    raise _BadRequest(400)


async def _line(reader: asyncio.StreamReader) -> str:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise _BadRequest(400) from None
    return line.rstrip(b"\r\n").decode("latin-1")
