"""Reconcilers: one holder in the farm, on period and on demand, again after a failure or a death."""

import threading
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from pileus.server.db.tables.job import lease
from pileus.server.db.transaction import Database
from pileus.server.jobs import reconciler
from pileus.server.jobs.reconciler import ReconcilerPool, run_once, trigger
from pileus.testing import FakeClock, World

SECONDS = 20.0


class Died(BaseException):
    """The server's process ended."""


class Toy:
    """A reconciler that does what a test says."""

    def __init__(self) -> None:
        self.runs = 0
        self.does: Callable[[Database], None] = lambda db: None
        self.ran = threading.Semaphore(0)

    def run(self, db: Database) -> None:
        self.runs += 1
        try:
            self.does(db)
        finally:
            self.ran.release()


@pytest.fixture
def toy(world: World) -> Iterator[Toy]:
    there = dict(reconciler.reconcilers)
    reconciler.reconcilers.clear()
    made = Toy()
    reconciler.reconciler("toy", period_seconds=60)(made.run)
    with world.db.write() as tx:
        reconciler.ensure_all(tx, ran_at=tx.now)
    yield made
    reconciler.reconcilers.clear()
    reconciler.reconcilers.update(there)


def due(db: Database) -> list[str]:
    with db.read() as tx:
        return reconciler.due(tx)


def ask(db: Database) -> None:
    with db.write() as tx:
        trigger(tx, "toy")


def test_it_is_due_when_its_period_has_passed(toy: Toy, db: Database, clock: FakeClock) -> None:
    assert due(db) == []
    clock.advance(60)
    assert due(db) == ["toy"]
    assert run_once(db, "toy", owner="a")
    assert due(db) == []


def test_a_trigger_makes_it_due_once(toy: Toy, db: Database) -> None:
    ask(db)
    ask(db)
    assert due(db) == ["toy"]
    assert run_once(db, "toy", owner="a")
    assert due(db) == []


def test_a_trigger_that_rolls_back_does_nothing(toy: Toy, db: Database) -> None:
    with pytest.raises(RuntimeError), db.write() as tx:
        trigger(tx, "toy")
        raise RuntimeError("rolled back")
    assert due(db) == []


def test_a_trigger_during_a_run_asks_for_another(toy: Toy, db: Database) -> None:
    toy.does = ask
    assert run_once(db, "toy", owner="a")
    assert due(db) == ["toy"]


def test_nobody_else_runs_it_meanwhile(toy: Toy, db: Database) -> None:
    others: list[bool] = []
    toy.does = lambda db: others.append(run_once(db, "toy", owner="b"))
    assert run_once(db, "toy", owner="a")
    assert others == [False]
    assert toy.runs == 1


def test_a_run_that_its_server_did_not_survive_comes_again_when_the_lease_is_over(
    toy: Toy, db: Database, clock: FakeClock
) -> None:
    def die(db: Database) -> None:
        raise Died

    toy.does = die
    ask(db)
    with pytest.raises(Died):
        run_once(db, "toy", owner="a")
    assert due(db) == []
    clock.advance(30)
    assert due(db) == ["toy"]


def test_a_run_that_fails_comes_again_with_the_next_period(toy: Toy, db: Database, clock: FakeClock) -> None:
    def fail(db: Database) -> None:
        raise OSError("it fails")

    toy.does = fail
    with pytest.raises(OSError, match="it fails"):
        run_once(db, "toy", owner="a")
    assert due(db) == []
    clock.advance(60)
    assert due(db) == ["toy"]


def test_two_of_one_name_are_refused(toy: Toy) -> None:
    with pytest.raises(ValueError, match="twice"):
        reconciler.reconciler("toy", period_seconds=1)(toy.run)


def test_a_pool_runs_what_is_triggered_and_survives_a_failure(toy: Toy, db: Database) -> None:
    def fail_first(db: Database) -> None:
        if toy.runs == 1:
            raise OSError("it fails")

    toy.does = fail_first
    pool = ReconcilerPool(db, owner="a", poll_seconds=60.0)
    pool.start()
    try:
        for _ in range(3):
            ask(db)
            assert toy.ran.acquire(timeout=SECONDS)
    finally:
        assert pool.stop(seconds=SECONDS)
    assert toy.runs == 3


def test_a_pool_runs_again_what_was_triggered_during_a_run(toy: Toy, db: Database) -> None:
    toy.does = lambda db: ask(db) if toy.runs == 1 else None
    pool = ReconcilerPool(db, owner="a", poll_seconds=60.0)
    pool.start()
    try:
        ask(db)
        assert toy.ran.acquire(timeout=SECONDS)
        assert toy.ran.acquire(timeout=SECONDS)
    finally:
        assert pool.stop(seconds=SECONDS)


def test_a_pool_keeps_the_lease_of_a_slow_run(toy: Toy, db: Database, clock: FakeClock) -> None:
    finish = threading.Event()
    toy.does = lambda db: assert_set(finish)
    renewed = threading.Event()
    pool = ReconcilerPool(db, owner="a", poll_seconds=0.02, lease_seconds=30)
    pool.start()
    try:
        ask(db)
        while toy.runs == 0:
            renewed.wait(0.01)
        for _ in range(6):
            before = lease_end(db)
            clock.advance(15)
            for _ in range(2000):
                if lease_end(db) > before:
                    break
                renewed.wait(0.01)
            assert lease_end(db) > before, "the lease was not renewed"
            assert not run_once(db, "toy", owner="b")
    finally:
        finish.set()
        assert pool.stop(seconds=SECONDS)
    assert toy.runs == 1


def assert_set(event: threading.Event) -> None:
    assert event.wait(SECONDS)


def lease_end(db: Database) -> int:
    with db.read() as tx:
        row = tx.one(select(lease).where(lease.c.name == "toy"))
    assert row is not None
    return int(row["until_at"])
