"""Serves images to the zone's hosts: HTTPS with mutual TLS, `/images/NAME`, nothing else.

Who has no certificate of the cloud's CA does not get past the handshake. There is no listing, and names with a slash
or a leading dot do not exist.
"""

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

log = structlog.get_logger(__name__)

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
PREFIX = "/images/"

_CHUNK_BYTES = 1 << 18
_HEAD_BYTES = 16384
_HEAD_SECONDS = 30.0
_WRITE_SECONDS = 120.0
_GOODBYE_SECONDS = 5.0
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_TEXTS = {
    200: "OK",
    206: "Partial Content",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    416: "Range Not Satisfiable",
}


@dataclass(frozen=True)
class _Request:
    method: str
    target: str
    range: str


class _Bad(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ImageServer:
    """The listening socket. `directory` holds the images under the names they are asked by."""

    def __init__(self, directory: Path, context: ssl.SSLContext) -> None:
        self._directory = directory
        self._context = context
        self._server: asyncio.Server | None = None
        self._answering: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def open(self, address: str, port: int) -> int:
        """Listen, and return the port (useful with port 0)."""
        self._server = await asyncio.start_server(
            self._met,
            address,
            port,
            ssl=self._context,
            limit=_HEAD_BYTES,
            ssl_handshake_timeout=_HEAD_SECONDS,
            ssl_shutdown_timeout=_GOODBYE_SECONDS,
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, and break off what is being sent."""
        if self._server is None:
            return
        self._server.close()
        tasks = [task for task in self._answering.values() if task is not None]
        # Aborted and not cancelled: asyncio's streams report a cancelled task as a fault.
        for writer in list(self._answering):
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None or not self._server.is_serving():
            writer.transport.abort()  # It was still shaking hands when we closed.
            return
        self._answering[writer] = asyncio.current_task()
        try:
            while await self._one(reader, writer):
                pass
        except (TimeoutError, ConnectionError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            log.debug("image.connection_ended", reason=type(error).__name__)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
                await writer.wait_closed()
            del self._answering[writer]

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection has to end."""
        try:
            request = await _read(reader)
            if request is None:
                return False
            if request.method not in ("GET", "HEAD"):
                raise _Bad(405)
            with self._opened(request.target) as file:
                await _send_file(writer, request, file)
        except _Bad as bad:
            await _send_head(writer, bad.status, {"Content-Length": "0", "Connection": "close"})
            return False
        return True

    def _opened(self, target: str) -> BinaryIO:
        name = target.removeprefix(PREFIX)
        if not target.startswith(PREFIX) or not NAME.fullmatch(name):
            raise _Bad(404)
        try:
            descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise _Bad(404) from error
        return os.fdopen(descriptor, "rb")


def server_context(certificate: str, key: str, ca: str) -> ssl.SSLContext:
    """TLS 1.3 with our certificate, for peers whose certificate is of the same CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    context.load_verify_locations(cafile=ca)
    return context


async def _read(reader: asyncio.StreamReader) -> _Request | None:
    """The head of a request; None when the peer has gone."""
    try:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return None
        raise _Bad(400) from error
    except asyncio.LimitOverrunError as error:
        raise _Bad(400) from error
    first, *lines = head.decode("latin-1").split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or words[2] != "HTTP/1.1":
        raise _Bad(400)
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if fields.get("content-length", "0") != "0" or "transfer-encoding" in fields:
        raise _Bad(400)
    return _Request(words[0], words[1], fields.get("range", ""))


async def _send_file(writer: asyncio.StreamWriter, request: _Request, file: BinaryIO) -> None:
    size = os.fstat(file.fileno()).st_size
    start, end = _span(request.range, size)
    partial = bool(request.range)
    fields = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(end - start),
        "Accept-Ranges": "bytes",
    }
    if partial:
        fields["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    await _send_head(writer, 206 if partial else 200, fields)
    if request.method == "HEAD":
        return
    file.seek(start)
    left = end - start
    while left:
        chunk = await asyncio.to_thread(file.read, min(_CHUNK_BYTES, left))
        if not chunk:
            raise ConnectionAbortedError("the image became shorter")
        left -= len(chunk)
        writer.write(chunk)
        await _drained(writer.drain)


def _span(text: str, size: int) -> tuple[int, int]:
    """First and behind-last byte of a Range field (RFC 9110, one range); the whole file without one."""
    if not text:
        return 0, size
    match = _RANGE.fullmatch(text)
    if match is None or match.groups() == ("", ""):
        raise _Bad(416)
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise _Bad(416)
    return start, end


async def _send_head(writer: asyncio.StreamWriter, status: int, fields: dict[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} {_TEXTS[status]}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    writer.write("\r\n".join(lines).encode("latin-1"))
    await _drained(writer.drain)


async def _drained(drain: Callable[[], Awaitable[None]]) -> None:
    await asyncio.wait_for(drain(), _WRITE_SECONDS)
