"""Processes of the router's network namespace, whoever started them."""

import asyncio
import contextlib
import errno
import os
from pathlib import Path


def named(program: str, argument: str = "") -> dict[int, int]:
    """Processes of this network namespace that run `program` (with this argument): each with its parent."""
    ours = os.stat("/proc/self/ns/net").st_ino
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        # What ends while we look is not there.
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text().strip() != program or os.stat(entry / "ns/net").st_ino != ours:
                continue
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            if state != "Z" and (not argument or argument.encode() in arguments):
                found[int(entry.name)] = int(parent)
    return found


async def ended(pid: int, seconds: float | None = None) -> bool:
    """Wait until the process has ended; False when it has not in so many seconds."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    except OSError as error:
        # Its number lives on as that of a session or group of its children; older kernels say so in this way.
        if error.errno == errno.EINVAL:
            return True
        raise
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    loop.add_reader(handle, over.set)
    try:
        async with asyncio.timeout(seconds):
            await over.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return True
