"""The control channel over a virtio-serial port: `router.control` for a stream that has no connections.

A port cannot tell one conversation from the next: what an agent that went away has asked is still answered, to whoever
comes then. So every line from the host bears a mark before its message, and its answer bears the same mark; an answer
begins on a line of its own. The driver says nothing by `poll` while nobody is at the other end, it sends SIGIO.
"""

import asyncio
import errno
import fcntl
import os
import select
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from pileus.wire.appliance import MAX_LINE_BYTES, MAX_MARK_BYTES

PORTS = Path("/sys/class/virtio-ports")
READ_BYTES = 65536
MISSED_SIGNAL_SECONDS = 5.0
"""After so long the port is looked at without a signal."""
FULL_SECONDS = 0.005
"""How long the host is given to take what is written before it is tried again."""

log = structlog.get_logger()

Answering = Callable[[bytes], Awaitable[bytes]]
"""From a message to its reply, both without the end of the line."""


def device(name: str, ports: Path = PORTS, devices: Path = Path("/dev")) -> Path:
    """The device of the port with this name; raises FileNotFoundError when the machine has none."""
    for port in sorted(ports.glob("vport*")):
        if (port / "name").read_text().strip() == name:
            return devices / port.name
    raise FileNotFoundError(errno.ENOENT, "no virtio-serial port of this name", name)


async def serve(path: Path, answer: Answering) -> None:
    """Answer what comes from the port, one line after the other, until cancelled."""
    port = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    stirred = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGIO, stirred.set)
    try:
        fcntl.fcntl(port, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(port, fcntl.F_SETFL, fcntl.fcntl(port, fcntl.F_GETFL) | os.O_ASYNC)
        await Conversation(port, answer, stirred).run()
    finally:
        loop.remove_signal_handler(signal.SIGIO)
        os.close(port)


class Conversation:
    """Reads lines from a descriptor that does not block, and writes replies to it; `stirred` says when to look."""

    def __init__(self, port: int, answer: Answering, stirred: asyncio.Event) -> None:
        self._port = port
        self._answer = answer
        self._stirred = stirred
        self._begun = bytearray()
        """The part of a line that has come."""

    async def run(self) -> None:
        while True:
            self._stirred.clear()
            while data := self._read():
                for line in self._lines(data):
                    await self._reply(line)
            try:
                async with asyncio.timeout(MISSED_SIGNAL_SECONDS):
                    await self._stirred.wait()
            except TimeoutError:
                continue

    def _read(self) -> bytes:
        """What is there; b"" when that is nothing, and also when nobody is at the other end."""
        try:
            return os.read(self._port, READ_BYTES)
        except BlockingIOError:
            return b""

    def _lines(self, data: bytes) -> list[bytes]:
        *whole, rest = data.split(b"\n")
        if whole:
            whole[0] = bytes(self._begun) + whole[0]
            self._begun = bytearray(rest)
        else:
            self._begun += rest
        if len(self._begun) > MAX_LINE_BYTES:
            log.warning("a line of the control channel is too long", bytes=len(self._begun))
            self._begun.clear()
        return [line for line in whole if line]

    async def _reply(self, line: bytes) -> None:
        mark, space, message = line.partition(b" ")
        if not space or not mark or len(mark) > MAX_MARK_BYTES:
            # The rest of what somebody began to say before they went away.
            return
        await self._write(b"\n" + mark + b" " + await self._answer(message) + b"\n")

    async def _write(self, data: bytes) -> None:
        """All of it, or none of the rest once nobody is there to take it."""
        view = memoryview(data)
        while view and self._heard():
            try:
                view = view[os.write(self._port, view) :]
            except BlockingIOError:
                await asyncio.sleep(FULL_SECONDS)

    def _heard(self) -> bool:
        poll = select.poll()
        poll.register(self._port, select.POLLOUT)
        return not any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
