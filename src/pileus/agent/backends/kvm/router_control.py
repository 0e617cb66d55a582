"""The agent's end of a router appliance's control channel, and how to tell whether anyone is at the other end."""

import asyncio
import os
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


async def configure(socket: Path, config: RouterConfig) -> RouterFacts:
    """Have the router at `socket` apply `config`; raises Refused with its reason, or Unreachable."""
    reply = await ask(socket, Configure(config), CONFIGURE_SECONDS)
    if reply.refusal is not None:
        raise Refused(reply.refusal.reason, reply.refusal.text)
    if reply.facts is None:
        raise Refused(Reason.FAILED, "the router did not say what it applied")
    return reply.facts


async def answers(socket: Path) -> bool:
    """Is there a router at `socket` that answers?"""
    try:
        await ask(socket, Status(traffic=False), STATUS_SECONDS)
    except Unreachable:
        return False
    return True


async def ask(socket: Path, message: AnyToRouter, seconds: float) -> RouterReply:
    """One message and its reply; raises Unreachable when none comes in `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _connect(socket)
            try:
                writer.write(encode(message) + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError) as error:
        raise Unreachable(f"no answer from the router: {error or type(error).__name__}") from error
    try:
        return decode_reply(line)
    except msgspec.DecodeError as error:
        raise Unreachable(f"the router ended the conversation: {error}") from error


async def _connect(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # An address of AF_UNIX has room for 107 bytes; by way of its directory a path of any length fits.
    directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{socket.name}", limit=MAX_LINE_BYTES)
    finally:
        os.close(directory)
