"""Many seeds, in processes of their own: one that breaks, hangs or takes its process along is told, others go on."""

import signal
import time
import traceback
from collections.abc import Iterable, Iterator
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess

from pileus.server.registered import register_all
from pileus.testing.simulation.run import Outcome, simulate

PATIENCE_SECONDS = 300.0
"""A seed that takes so long is given up: it plays in less than a second."""

_forked = get_context("fork")


def play_many(seeds: Iterable[int], *, acts: int | None = None, processes: int = 1) -> Iterator[Outcome]:
    """Play seeds, in `processes` at a time. Outcomes come as they are there, sound ones without their trace."""
    register_all()  # Once, and not in every process.
    waiting = iter(seeds)
    workers = [_Worker(acts) for _ in range(processes)]
    try:
        for each in workers:
            each.give(next(waiting, None))
        while busy := [each for each in workers if each.seed is not None]:
            ready = connection.wait([each.pipe for each in busy], timeout=1.0)
            for each in busy:
                outcome = each.outcome() if each.pipe in ready else each.overdue()
                if outcome is not None:
                    each.give(next(waiting, None))
                    yield outcome
    finally:
        for each in workers:
            each.end()


class _Worker:
    """A process that plays one seed after another, and another process when it has ended."""

    def __init__(self, acts: int | None) -> None:
        self._acts = acts
        self.seed: int | None = None
        self._began = 0.0
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = _forked.Pipe()
        self._process: ForkProcess = _forked.Process(target=_work, args=(theirs, self._acts), daemon=True)
        self._process.start()
        theirs.close()

    def give(self, seed: int | None) -> None:
        """Play this one now; None for nothing more."""
        self.seed, self._began = seed, time.monotonic()
        if seed is not None:
            self.pipe.send(seed)

    def outcome(self) -> Outcome:
        """What has come out, also when the process has not survived it."""
        assert self.seed is not None  # noqa: S101 (only those at work are asked)
        try:
            found: Outcome = self.pipe.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode or 0
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            self._start()
            return Outcome.of_failure(self.seed, f"the process that played it ended: {how}")
        return found

    def overdue(self) -> Outcome | None:
        """That it was given up, if it has taken too long."""
        if self.seed is None or time.monotonic() - self._began < PATIENCE_SECONDS:
            return None
        self.end()
        self._start()
        return Outcome.of_failure(self.seed, f"not over after {PATIENCE_SECONDS:.0f} s")

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.join()
        self.pipe.close()


def _work(pipe: Connection, acts: int | None) -> None:
    # Whoever interrupts the parent wants it to tell what it knows, and not two tracebacks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pipe.send(_played(pipe.recv(), acts))


def _played(seed: int, acts: int | None) -> Outcome:
    try:
        return simulate(seed, acts=acts).without_trace()
    except Exception:
        return Outcome.of_failure(seed, f"the run itself failed: {traceback.format_exc()}")
