"""Commits of SQLite that share their way to the disk: one flush serves all that were written before it began.

SQLite would flush its log at each commit, with the writer's place taken: 3 ms each, and nobody else writes. Here a
commit writes the log and gives the place up; whoever wants to say that it is durable waits for a flush that began
later. The log is one file that grows at its end, so what a flush covers is always a prefix of the commits.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path


class DiskFailed(OSError):
    """A flush failed: what was written since the last good one may be lost, and nothing may be acknowledged."""


class LogFlush:
    """Flushes the write-ahead log of one database for the threads of this process."""

    def __init__(self, database: Path) -> None:
        self._log = database.with_name(f"{database.name}-wal")
        self._turn = threading.Condition()
        self._written = 0
        self._flushed = 0
        self._flushing = False
        self._failed: OSError | None = None
        self._file: int | None = None

    def written(self) -> int:
        """Count a commit whose log is written, with the writer's place still taken; a ticket for `wait`."""
        with self._turn:
            self._written += 1
            return self._written

    def wait(self, ticket: int | None = None) -> None:
        """Return once the commit of the ticket is on disk, or all so far without one. Raises DiskFailed."""
        with self._turn:
            wanted = self._written if ticket is None else ticket
            while True:
                if self._failed is not None:
                    raise DiskFailed(self._failed.errno, "the log could not be flushed") from self._failed
                if self._flushed >= wanted:
                    return
                if not self._flushing:
                    break
                self._turn.wait()
            self._flushing = True
            covers = self._written
        failed: OSError | None = None
        try:
            os.fdatasync(self._open())
        except OSError as error:
            # The kernel tells of a lost page once: a second flush that goes well would prove nothing.
            failed = error
        with self._turn:
            self._flushing = False
            self._failed = failed
            if failed is None:
                self._flushed = covers
            self._turn.notify_all()
        if failed is not None:
            raise DiskFailed(failed.errno, "the log could not be flushed") from failed

    def close(self) -> None:
        """Let the file go."""
        with self._turn:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def _open(self) -> int:
        """The log as it is named now: SQLite removes it with its last connection, and makes another."""
        there = os.stat(self._log)
        if self._file is not None:
            held = os.fstat(self._file)
            if (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino):
                return self._file
            with suppress(OSError):
                os.close(self._file)
        self._file = os.open(self._log, os.O_RDONLY | os.O_CLOEXEC)
        return self._file
