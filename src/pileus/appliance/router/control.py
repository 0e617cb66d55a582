"""The control channel: messages of `wire.appliance` on any stream, here a unix socket that only its owner may open.

A virtio-serial port of a system VM is another stream (`machine.port`), which has the same `answer` to each line.
"""

import asyncio
import os
import socket
import struct
from pathlib import Path

import msgspec
import structlog

from pileus.appliance.router.errors import ConfigRefused
from pileus.appliance.router.router import Router
from pileus.wire.appliance import MAX_LINE_BYTES, AnyToRouter, Configure, RouterReply, Status, encode
from pileus.wire.operations import Reason, Refusal

_PEER = struct.Struct("3i")

log = structlog.get_logger()


async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, router: Router) -> None:
    """Answer every line until the other side ends."""
    while line := await reader.readline():
        writer.write(await answer(line, router) + b"\n")
        await writer.drain()


async def answer(line: bytes, router: Router) -> bytes:
    """The reply to one message, both as JSON on a line."""
    return encode(await _reply(line, router))


async def _reply(line: bytes, router: Router) -> RouterReply:
    try:
        message = router.reader.read(line)
    except msgspec.DecodeError as error:
        # Malformed or of the wrong shape. The error names a path in the message, never a value of it.
        return RouterReply(refusal=Refusal(Reason.REJECTED, f"not a message: {error}"))
    try:
        return await _do(message, router)
    except ConfigRefused as refused:
        return RouterReply(refusal=Refusal(refused.reason, refused.text))
    except Exception as error:
        log.exception("a message failed", message=type(message).__name__)
        return RouterReply(refusal=Refusal(Reason.FAILED, f"the router failed: {type(error).__name__}"))


async def _do(message: AnyToRouter, router: Router) -> RouterReply:
    match message:
        case Configure(config):
            return RouterReply(facts=await router.configure(config))
        case Status(traffic):
            return RouterReply(facts=router.facts, counters=await router.counters(traffic=traffic))


async def listen(path: Path, router: Router) -> asyncio.Server:
    """Converse with every peer of the same user that connects to the socket at `path`."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if _user(writer.get_extra_info("socket")) == os.geteuid():
                await converse(reader, writer, router)
        except (ConnectionError, ValueError) as error:
            log.warning("control connection ended", error=str(error))
        finally:
            writer.close()

    # An address of AF_UNIX has room for 107 bytes; by way of its directory a path of any length fits.
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    mask = os.umask(0o177)
    try:
        reachable = f"/proc/self/fd/{directory}/{path.name}"
        return await asyncio.start_unix_server(greet, reachable, limit=MAX_LINE_BYTES)
    finally:
        os.umask(mask)
        os.close(directory)


def _user(connection: socket.socket) -> int:
    """The user id of the process at the other end, as the kernel knows it."""
    _, user, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(user)
