"""Worker pools with real threads on a real database."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pileus.server.db.transaction import Database
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.engine import Engine, Hooks
from pileus.server.jobs.plan import StepCall, step, workflow
from pileus.server.jobs.pool import JobPool
from pileus.server.jobs.submit import JobRef, Owner, submit, wake

OWNER = Owner(2, 1, 2)
SECONDS = 20.0
"""How long a test waits for what must happen before it says that it did not."""

calls: Counter[int] = Counter()
calls_lock = threading.Lock()
inside = threading.Event()
go_on = threading.Event()
open_topics: set[str] = set()


@step("pooltoy.count")
def count(ctx: StepContext, number: int) -> None:
    def counted() -> None:
        with calls_lock:
            calls[number] += 1

    ctx.tx.after_commit(counted)


@step("pooltoy.hold")
def hold(ctx: StepContext) -> None:
    inside.set()
    assert go_on.wait(SECONDS)


@step("pooltoy.wait")
def wait(ctx: StepContext, topic: str) -> None:
    if topic not in open_topics:
        raise Nap(topic=topic)


@step("pooltoy.nap")
def nap(ctx: StepContext, topic: str) -> None:
    if topic not in open_topics:
        open_topics.add(topic)
        raise Nap(0.2)


@workflow("pooltoy.counts")
def counts(number: int) -> Iterator[StepCall]:
    yield count(number=number)
    yield count(number=number)


@workflow("pooltoy.holds")
def holds() -> Iterator[StepCall]:
    yield hold()
    yield count(number=-1)


@workflow("pooltoy.waits")
def waits(topic: str) -> Iterator[StepCall]:
    yield wait(topic=topic)


@workflow("pooltoy.naps")
def naps(topic: str) -> Iterator[StepCall]:
    yield nap(topic=topic)


class Ends:
    """Jobs that have ended, as the engine's hook tells after the commit."""

    def __init__(self) -> None:
        self.phases: dict[int, str] = {}
        self._changed = threading.Condition()
        self.hooks = Hooks(on_end=[lambda tx, row: tx.after_commit(lambda: self._ended(row["id"], row["phase"]))])

    def _ended(self, job_id: int, phase: str) -> None:
        with self._changed:
            self.phases[job_id] = phase
            self._changed.notify_all()

    def wait_for(self, *refs: JobRef) -> set[str]:
        """The phases of these jobs, once all have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: all(ref.id in self.phases for ref in refs), SECONDS)
            return {self.phases[ref.id] for ref in refs}


@pytest.fixture
def real(db: Database) -> Iterator[Database]:
    """The same database under the machine's clock: threads cannot wait for a clock that stands still."""
    calls.clear()
    inside.clear()
    go_on.clear()
    open_topics.clear()
    database = Database(db.url.render_as_string(hide_password=False))
    yield database
    database.dispose()


@contextmanager
def pool_of(database: Database, ends: Ends, *, workers: int = 4, poll_seconds: float = 60.0) -> Iterator[JobPool]:
    pool = JobPool(Engine(database, owner="here", hooks=ends.hooks), workers=workers, poll_seconds=poll_seconds)
    pool.start()
    try:
        yield pool
    finally:
        go_on.set()
        assert pool.stop(seconds=SECONDS)


def send(database: Database, *plans: object) -> list[JobRef]:
    with database.write() as tx:
        return [submit(tx, plan, OWNER, command="toy") for plan in plans]  # type: ignore[arg-type]


def test_submitted_jobs_are_run_at_once_without_polling(real: Database) -> None:
    ends = Ends()
    with pool_of(real, ends):
        for _ in range(3):
            assert ends.wait_for(*send(real, counts(1))) == {"succeeded"}


def test_many_workers_run_every_step_of_every_job_exactly_once(real: Database) -> None:
    ends = Ends()
    with pool_of(real, ends), pool_of(Database(real.url.render_as_string()), ends):
        refs = [ref for number in range(0, 200, 10) for ref in send(real, *map(counts, range(number, number + 10)))]
        assert ends.wait_for(*refs) == {"succeeded"}
    assert set(calls.values()) == {2}
    assert len(calls) == 200


def test_a_woken_job_goes_on_at_once(real: Database) -> None:
    ends = Ends()
    with pool_of(real, ends):
        (ref,) = send(real, waits("door"))
        (other,) = send(real, counts(1))
        ends.wait_for(other)
        open_topics.add("door")
        with real.write() as tx:
            wake(tx, "door")
        assert ends.wait_for(ref) == {"succeeded"}


def test_a_nap_ends_at_its_time_although_nobody_signals(real: Database) -> None:
    ends = Ends()
    with pool_of(real, ends):
        assert ends.wait_for(*send(real, naps("bed"))) == {"succeeded"}


def test_a_job_whose_signal_was_lost_is_found_by_the_poll(real: Database) -> None:
    ends = Ends()
    (ref,) = send(real, counts(1))
    with pool_of(real, ends, poll_seconds=0.05):
        ends.wait_for(ref)
        # Another process commits: its signals do not reach this one.
        with real.write() as tx:
            other = submit(tx, counts(2), OWNER, command="toy")
            tx._after.clear()
        assert ends.wait_for(other) == {"succeeded"}


def test_stopping_finishes_the_step_under_way_and_gives_the_job_back(real: Database) -> None:
    ends = Ends()
    pool = JobPool(Engine(real, owner="here", hooks=ends.hooks), workers=1)
    pool.start()
    (ref,) = send(real, holds())
    assert inside.wait(SECONDS)
    assert not pool.stop(seconds=0.01), "the step holds it up"
    go_on.set()
    with pool_of(real, ends):
        assert ends.wait_for(ref) == {"succeeded"}
    assert calls[-1] == 1


def test_a_pool_without_workers_is_refused(real: Database) -> None:
    with pytest.raises(ValueError, match="worker"):
        JobPool(Engine(real, owner="here"), workers=0)
