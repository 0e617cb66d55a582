"""Programs of the cloud on this machine that outlive the command that started them."""

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pileus.sandbox import processes


@dataclass(frozen=True)
class Daemon:
    """A program with a record of its process: number and start time, so that none is mistaken for another."""

    name: str
    record: Path
    log: Path

    def start(self, argv: Sequence[str]) -> None:
        """Start it in a session of its own, its output going to the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/"
            )
        entry = {"pid": process.pid, "started": processes.start_time(process.pid)}
        half = self.record.with_suffix(".new")
        half.write_text(json.dumps(entry))
        half.replace(self.record)

    def running(self) -> bool:
        """Whether the recorded process lives."""
        found = self._recorded()
        return found is not None and processes.alive(*found)

    @property
    def pid(self) -> int | None:
        """Number of the living process."""
        found = self._recorded()
        return found[0] if found is not None and processes.alive(*found) else None

    def stop(self, *, seconds: float = 15.0) -> None:
        """Ask it to end, and end it when it does not. Fine when it is not there."""
        found = self._recorded()
        if found is not None and processes.send(*found, signal.SIGTERM) and not processes.wait_gone(*found, seconds):
            processes.kill(*found)
        self.record.unlink(missing_ok=True)
        self._reap()

    def last_words(self, lines: int = 12) -> str:
        """The end of its log, for an error message."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

    def _recorded(self) -> tuple[int, int] | None:
        try:
            entry = json.loads(self.record.read_text())
            return int(entry["pid"]), int(entry["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _reap(self) -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
