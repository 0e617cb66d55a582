"""One thread's work: scout for runnable jobs, run them, scout again. Only one thread of a pool scouts at a time.

The scout sleeps until it is told of a job, until the nearest nap ends, or for the fallback poll, whichever is first;
so a process with nothing to do costs one small query per poll, whatever its number of workers.
"""

import threading
import time

import structlog
from sqlalchemy import func, select

from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database
from pileus.server.jobs.engine import Engine
from pileus.server.jobs.hold import Held

log = structlog.get_logger()

POLL_SECONDS = 1.0
STALLED_SECONDS = 60.0


class Signal:
    """Says that something may be runnable. Set by any thread, taken by the scout."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.scouting = threading.Lock()
        self.stopped = False
        self._moved_at = time.monotonic()

    def moved(self) -> bool:
        """A worker looked for a job or begins a step: a sign of life. Says whether it shall stop."""
        self._moved_at = time.monotonic()
        return self.stopped

    @property
    def silent_seconds(self) -> float:
        """How long ago the last sign of life was."""
        return time.monotonic() - self._moved_at

    def set(self) -> None:
        """Wake the scout."""
        self._event.set()

    def stop(self) -> None:
        """Wake every worker to end."""
        self.stopped = True
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Until somebody sets it, at most `seconds`."""
        self._event.wait(seconds)

    def clear(self) -> None:
        """Forget what was set, before looking."""
        if not self.stopped:
            self._event.clear()


class Worker:
    """Runs jobs until the signal stops."""

    def __init__(self, engine: Engine, signal: Signal, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._engine = engine
        self._signal = signal
        self._poll_seconds = poll_seconds

    def work(self) -> None:
        """Body of the thread."""
        while not self._signal.stopped:
            for held in self._scout():
                try:
                    self._engine.run(held, stopping=self._signal.moved)
                except Exception:
                    # The database failed us; the lease runs out and the job goes on from its last commit.
                    log.exception("job interrupted", job=held.uuid)
                # It may have parked for a moment that comes before the one the scout sleeps until.
                self._signal.set()

    def _scout(self) -> list[Held]:
        with self._signal.scouting:
            while not self._signal.moved():
                self._signal.clear()
                try:
                    taken = self._engine.take()
                    pause = 0.0 if taken is not None else seconds_to_next(self._engine.db, self._poll_seconds)
                except Exception:
                    log.exception("no job could be claimed")
                    taken, pause = None, self._poll_seconds
                if taken:
                    return taken
                if pause:
                    self._signal.wait(pause)
        return []


def seconds_to_next(db: Database, most: float) -> float:
    """Seconds until the nearest nap ends, between 0.01 and `most`."""
    with db.read() as tx:
        wake_at = _NEXT.scalar(tx)
        return most if wake_at is None else min(most, max(0.01, (wake_at - tx.now) / 1000))


_NEXT = Prepared(select(func.min(job.c.wake_at)).where(job.c.open == 1))


def started(name: str, worker: Worker) -> threading.Thread:
    """A running thread of the worker."""
    thread = threading.Thread(target=worker.work, name=name, daemon=True)
    thread.start()
    return thread


def joined(threads: list[threading.Thread], seconds: float) -> bool:
    """Wait for all threads to end, at most `seconds` in all."""
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)
