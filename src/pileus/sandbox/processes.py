"""Processes known by number and start time: a number alone may belong to somebody else by now."""

import contextlib
import os
import select
import signal
import time
from pathlib import Path


def start_time(pid: int) -> int:
    """Ticks between the machine's boot and the start of `pid`; 0 when there is no such process, or it is a zombie."""
    try:
        # The second field is the program's name in brackets, and may itself hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])


def alive(pid: int, started: int) -> bool:
    """True when `pid` is still the process that started then."""
    return pid > 0 and started > 0 and start_time(pid) == started


def send(pid: int, started: int, number: signal.Signals) -> bool:
    """Send a signal to `pid` if it is still the process that started then; True when it was sent."""
    if pid <= 0 or started <= 0:
        return False
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # The handle pins the process, so the start time read now is that of what the signal will reach.
        if not alive(pid, started):
            return False
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def wait_gone(pid: int, started: int, seconds: float) -> bool:
    """Wait for the end of a process; True when it is gone in time."""
    deadline = time.monotonic() + seconds
    try:
        handle = os.pidfd_open(pid)
    except (ProcessLookupError, OSError):
        return not alive(pid, started)
    try:
        if not alive(pid, started):
            return True
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
    finally:
        os.close(handle)


def kill(pid: int, started: int, seconds: float = 10.0) -> bool:
    """Pull a process out of the world; True when it is gone."""
    send(pid, started, signal.SIGKILL)
    return wait_gone(pid, started, seconds)


def only_child(pid: int) -> int:
    """The child of a process that has one; 0 when it has none (yet)."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
    return 0


def in_netns(path: Path) -> list[int]:
    """Processes, ourselves excepted, that live in the network namespace mounted at `path`."""
    try:
        wanted = os.stat(path)
    except FileNotFoundError:
        return []
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            seen = os.stat(f"/proc/{entry}/ns/net")
            if (seen.st_dev, seen.st_ino) == (wanted.st_dev, wanted.st_ino):
                found.append(int(entry))
    return found
