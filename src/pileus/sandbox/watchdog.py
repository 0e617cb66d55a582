"""Takes away what a killed test run leaves: a process of its own, at whose pipe the run's end is heard.

`with Watchdog() as dog:` in the run; `dog.sandbox(prefix)` and `dog.network(prefix)` before such things are made.
Processes need not be told: whatever the run starts inherits a mark in its environment. A run that ends well has
cleaned up itself and says so; then the dog goes without looking.
"""

import fnmatch
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from pileus.sandbox import processes
from pileus.sandbox.commands import SandboxError, attempt
from pileus.sandbox.sweep import leftovers, sweep

MARK = "PILEUS_RUN"
"""Environment variable that what a run starts carries. Who must outlive the run for its own cleaning drops it."""

DONE = "done"
SECONDS = 60.0
LOOKS = 3
"""So often in a row nothing must be found: what was killed may have been about to make something."""


class Watchdog:
    """The run's end of it."""

    def __enter__(self) -> Self:
        self._before = os.environ.get(MARK)
        os.environ.pop(MARK, None)
        mark = secrets.token_hex(8)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "pileus.sandbox.watchdog", mark],
            stdin=subprocess.PIPE,
            start_new_session=True,
            cwd="/",
            text=True,
            bufsize=1,
        )
        os.environ[MARK] = mark
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.environ.pop(MARK, None)
        if self._before is not None:
            os.environ[MARK] = self._before
        self._say(DONE)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(SECONDS)

    def sandbox(self, prefix: str) -> None:
        """Everything of this sandbox is the run's."""
        self._say(f"sandbox {prefix}")

    def network(self, pattern: str) -> None:
        """Network namespaces and devices of the root namespace whose names fit this shell pattern are the run's."""
        self._say(f"network {pattern}")

    def _say(self, line: str) -> None:
        if self._process.stdin is not None:
            self._process.stdin.write(f"{line}\n")


def marked(mark: str) -> list[int]:
    """Processes that carry the mark, ourselves excepted."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                environment = Path(f"/proc/{entry}/environ").read_bytes()
            except OSError:
                continue
            if wanted in environment.split(b"\0") and processes.start_time(int(entry)):
                found.append(int(entry))
    return found


def clean(mark: str, sandboxes: list[str], networks: list[str]) -> bool:
    """Take away all of a run until nothing of it shows up any more. False when that did not come about in time."""
    until = time.monotonic() + SECONDS
    quiet = 0
    while quiet < LOOKS:
        if time.monotonic() > until:
            return False
        living = marked(mark)
        found = [str(pid) for pid in living]
        for pid in living:
            processes.kill(pid, processes.start_time(pid))
        for prefix in sandboxes:
            if leftovers(prefix):
                found.append(prefix)
                _sweep(prefix)
        found += [name for pattern in networks for name in _unmake(pattern)]
        quiet = 0 if found else quiet + 1
        time.sleep(0.1)
    return True


def _unmake(pattern: str) -> list[str]:
    """Delete the namespaces (with who lives in them) and the devices that fit. Returns what was there."""
    spaces = fnmatch.filter(_names(Path("/run/netns")), pattern)
    for name in spaces:
        for pid in processes.in_netns(Path("/run/netns", name)):
            processes.kill(pid, processes.start_time(pid))
        attempt(["ip", "netns", "del", name])
    devices = fnmatch.filter(_names(Path("/sys/class/net")), pattern)
    for name in devices:
        attempt(["ip", "link", "del", name])
    return spaces + devices


def _names(directory: Path) -> list[str]:
    return os.listdir(directory) if directory.is_dir() else []


def _sweep(prefix: str) -> None:
    try:
        sweep(prefix)
    except SandboxError as error:
        # Somebody who was killed a moment ago may still be letting go; the next look tries again.
        sys.stderr.write(f"watchdog: {error}\n")


def main(mark: str) -> int:
    """Listen until the run ends, then do what it could not."""
    told: dict[str, list[str]] = {"sandbox": [], "network": []}
    for line in sys.stdin:
        kind, _, name = line.strip().partition(" ")
        if kind == DONE:
            return 0
        told[kind].append(name)
    return 0 if clean(mark, told["sandbox"], told["network"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
