"""The router program: owns the network namespace (or system VM) it is started in, until it is told to end."""

import argparse
import asyncio
import ctypes
import fcntl
import gc
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

from pileus.appliance.router.control import listen
from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.router import Router, Sides

FILES = Path("/mnt")
"""In a mount namespace of our own this is a file system of our own: readable by dnsmasq, and gone with us."""

CLONE_NEWNS = 0x00020000
MS_PRIVATE_RECURSIVE = 0x40000 | 0x4000
MS_NOSUID_NODEV_NOEXEC = 2 | 4 | 8

log = structlog.get_logger()


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="pileus.appliance.router", description="Be a guest network's router.")
    parser.add_argument("--control", type=Path, required=True, help="unix socket to listen on")
    parser.add_argument("--state", type=Path, required=True, help="directory for what is remembered")
    parser.add_argument("--guest", required=True, help="interface on the guest network")
    parser.add_argument("--public", default="", help="interface on the public network, if there is one")
    chosen = parser.parse_args(arguments)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    # A config is tens of thousands of objects without a cycle: looking for cycles every few hundred doubles its cost.
    gc.set_threshold(200_000, 20, 20)
    chosen.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (chosen.state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.error("another router works with this state", state=str(chosen.state))
            return 1
        try:
            _own_mounts()
            return asyncio.run(_run(chosen.control, chosen.state, Sides(guest=chosen.guest, public=chosen.public)))
        except (StepFailed, OSError, ValueError) as error:
            log.error("the router cannot work", error=str(error))
            return 1


async def _run(control: Path, state: Path, sides: Sides) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    router = Router(sides, state=state, files=FILES)
    await router.restore()
    # Who can connect finds the last config in place.
    server = await listen(control, router)
    log.info("router ready", guest=sides.guest, public=sides.public)
    await stopping.wait()
    server.close()
    await router.close()
    return 0


def _own_mounts() -> None:
    """Leave the host's mount namespace and mount an empty FILES."""
    libc = ctypes.CDLL(None, use_errno=True)
    _must(libc.unshare(CLONE_NEWNS), "unshare")
    _must(libc.mount(b"none", b"/", None, MS_PRIVATE_RECURSIVE, None), "private mounts")
    options = b"mode=755,size=64m"
    _must(libc.mount(b"tmpfs", os.fsencode(FILES), b"tmpfs", MS_NOSUID_NODEV_NOEXEC, options), "mount")


def _must(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


if __name__ == "__main__":
    sys.exit(main())
