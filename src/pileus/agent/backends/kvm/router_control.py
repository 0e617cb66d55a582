"""The agent's end of a router appliance's control channel, and how to tell whether anyone is at the other end.

A channel is a socket of the appliance itself, or a port of the machine that it is in (`appliance.machine.port`): what
comes from a port may be the answer to somebody before us, so there every line bears a mark.
"""

import asyncio
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pileus.agent.backend import Refused
from pileus.wire.appliance import MAX_LINE_BYTES, AnyToRouter, Configure, RouterReply, Status, decode_reply, encode
from pileus.wire.operations import Reason, RouterFacts
from pileus.wire.router import RouterConfig

CONFIGURE_SECONDS = 120.0
STATUS_SECONDS = 10.0


class Unreachable(Exception):
    """Nobody answers at the control socket."""


@dataclass(frozen=True)
class Port:
    """The host's end of a virtual machine's port; `path` "." when the machine is off."""

    path: Path


Channel = Path | Port


async def configure(socket: Channel, config: RouterConfig) -> RouterFacts:
    """Have the router at `socket` apply `config`; raises Refused with its reason, or Unreachable."""
    reply = await ask(socket, Configure(config), CONFIGURE_SECONDS)
    if reply.refusal is not None:
        raise Refused(reply.refusal.reason, reply.refusal.text)
    if reply.facts is None:
        raise Refused(Reason.FAILED, "the router did not say what it applied")
    return reply.facts


async def answers(socket: Channel, *, seconds: float | None = None) -> bool:
    """Is there a router at `socket` that answers?"""
    try:
        await ask(socket, Status(traffic=False), STATUS_SECONDS if seconds is None else seconds)
    except Unreachable:
        return False
    return True


async def ask(channel: Channel, message: AnyToRouter, seconds: float) -> RouterReply:
    """One message and its reply; raises Unreachable when none comes in `seconds`."""
    mark = secrets.token_hex(8).encode() if isinstance(channel, Port) else b""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _connect(channel.path if isinstance(channel, Port) else channel)
            try:
                writer.write(b"\n" + mark + b" " + encode(message) + b"\n" if mark else encode(message) + b"\n")
                await writer.drain()
                line = await _reply(reader, mark)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        raise Unreachable(f"no answer from the router: {error or type(error).__name__}") from error
    try:
        return decode_reply(line)
    except msgspec.DecodeError as error:
        raise Unreachable(f"the router ended the conversation: {error}") from error


async def _reply(reader: asyncio.StreamReader, mark: bytes) -> bytes:
    """The line that answers us; b"" when the other side ends."""
    while line := await reader.readline():
        if not mark:
            return line
        marked, _, rest = line.partition(b" ")
        if marked == mark:
            return rest
    return b""


async def _connect(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # An address of AF_UNIX has room for 107 bytes; by way of its directory a path of any length fits.
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{socket.name}", limit=MAX_LINE_BYTES)
    finally:
        os.close(directory)
