"""The program of a system VM: becomes the router that its boot arguments name, controlled by a virtio-serial port.

The machine is the router's alone: it runs as root in the one network namespace there is, and ends with the machine.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from pathlib import Path

import structlog

from pileus.appliance.machine import arguments, cards, port
from pileus.appliance.machine.arguments import Arguments, NoArguments
from pileus.appliance.router import control
from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.router import Router, Sides
from pileus.appliance.router.vpn import OwnMachine
from pileus.wire.appliance import CONTROL_PORT

STATE = Path("/var/lib/pileus")
FILES = Path("/mnt")

log = structlog.get_logger()


def main() -> int:
    """The program; returns its exit code."""
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        told = arguments.read()
        socket.sethostname(told.name)
        return asyncio.run(_run(told))
    except (NoArguments, StepFailed, OSError, ValueError) as error:
        log.error("the router cannot work", error=str(error))
        # It is started again at once: not too often.
        time.sleep(1)
        return 1


async def _run(told: Arguments) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    sides = Sides(guest=cards.GUEST, public=cards.PUBLIC if told.public else "")
    await cards.name({told.guest: cards.GUEST, **({told.public: cards.PUBLIC} if told.public else {})})
    router = Router(sides, state=STATE, files=FILES, machine=OwnMachine())
    await router.restore()
    # Who is answered finds the last config in place.
    serving = asyncio.create_task(port.serve(port.device(CONTROL_PORT), lambda line: control.answer(line, router)))
    log.info("router ready", name=told.name, uptime_seconds=time.clock_gettime(time.CLOCK_BOOTTIME))
    ended = asyncio.create_task(stopping.wait())
    await asyncio.wait({serving, ended}, return_when=asyncio.FIRST_COMPLETED)
    for task in (serving, ended):
        task.cancel()
    await router.close()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    return 0


if __name__ == "__main__":
    sys.exit(main())
