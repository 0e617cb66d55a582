"""The worker pool of one server: a few threads that run jobs as they become runnable."""

import threading

from pileus.server.jobs.engine import Engine
from pileus.server.jobs.wakeup import ignore, listen
from pileus.server.jobs.worker import POLL_SECONDS, STALLED_SECONDS, Signal, Worker, joined, started


class JobPool:
    """Start it once; `stop` lets every worker finish its step and gives the jobs back."""

    def __init__(self, engine: Engine, *, workers: int = 4, poll_seconds: float = POLL_SECONDS) -> None:
        if workers < 1:
            raise ValueError("a pool needs a worker")
        self._signal = Signal()
        self._workers = [Worker(engine, self._signal, poll_seconds=poll_seconds) for _ in range(workers)]
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to run jobs."""
        listen(self._signal.set)
        self._threads = [started(f"job-{number}", worker) for number, worker in enumerate(self._workers)]

    def trouble(self) -> str:
        """What keeps this pool from its work, or ""."""
        ended = sum(not thread.is_alive() for thread in self._threads)
        if ended:
            return f"{ended} of {len(self._workers)} workers have ended"
        silent = self._signal.silent_seconds
        return f"no worker has moved for {silent:.0f} s" if silent > STALLED_SECONDS else ""

    def stop(self, *, seconds: float = 10.0) -> bool:
        """End all workers. False when one did not end in time: its job's lease will run out."""
        ignore(self._signal.set)
        self._signal.stop()
        return joined(self._threads, seconds)
