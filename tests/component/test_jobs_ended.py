"""Ended jobs and answered operations go when their time is over, and not what an open job may still look at."""

from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from pileus.server.config import change, keys
from pileus.server.db.tables.host import host_operation
from pileus.server.db.tables.job import job
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import Owner, submit
from pileus.server.reconcilers import ended_jobs
from pileus.testing import World

DAY = 86_400


@pytest.fixture
def host_id(world: World) -> int:
    return world.cloud(hosts=1).hosts[0]


def ended_job(world: World, **values: Any) -> int:
    with world.db.write() as tx:
        ref = submit(tx, Plan("nothing", ()), Owner(2, 1, 2), command="x", parent_id=values.pop("parent_id", None))
    world.engine.run_one()
    return ref.id


def open_job(world: World) -> int:
    with world.db.write() as tx:
        ref = submit(tx, Plan("nothing", ()), Owner(2, 1, 2), command="x")
        tx.execute(update(job).where(job.c.id == ref.id).values(wake_at=None))
    return ref.id


def operation(world: World, name: str, host_id: int, job_id: int | None, *, pending: bool = False) -> None:
    with world.db.write() as tx:
        times = {"created_at": tx.now, "answered_at": None if pending else tx.now, "pending": 1 if pending else None}
        values = {"operation_id": name, "host_id": host_id, "queue": "q", "kind": "StopVm", "body": "{}"}
        tx.execute(insert(host_operation).values(**values, **times, job_id=job_id))


def jobs(world: World) -> list[int]:
    with world.reading() as tx:
        return list(tx.execute(select(job.c.id).order_by(job.c.id)).scalars())


def operations(world: World) -> list[str]:
    with world.reading() as tx:
        return list(tx.execute(select(host_operation.c.operation_id).order_by(host_operation.c.id)).scalars())


def test_an_ended_job_is_kept_for_its_time_and_no_longer(world: World) -> None:
    first = ended_job(world)
    world.clock.advance(DAY / 2)
    second = ended_job(world)
    world.reconcile("ended-jobs")
    assert jobs(world) == [first, second]
    world.clock.advance(DAY / 2 + 1)
    world.reconcile("ended-jobs")
    assert jobs(world) == [second]


def test_the_setting_decides_how_long(world: World) -> None:
    ended_job(world)
    newest = ended_job(world)
    with world.db.write() as tx:
        change(tx, keys.job_expire_minutes, "5", user_id=2)
    world.clock.advance(301)
    world.reconcile("ended-jobs")
    assert jobs(world) == [newest]


def test_the_number_of_a_job_is_never_given_again(world: World) -> None:
    numbers = []
    for _ in range(4):
        numbers.append(ended_job(world))
        world.clock.advance(2 * DAY)
        world.reconcile("ended-jobs")
    assert numbers == sorted(set(numbers))


def test_an_open_job_keeps_its_children_and_operations(world: World, host_id: int) -> None:
    parent = open_job(world)
    child = ended_job(world, parent_id=parent)
    operation(world, "asked", host_id, parent)
    world.clock.advance(2 * DAY)
    world.reconcile("ended-jobs")
    assert jobs(world) == [parent, child]
    assert operations(world) == ["asked"]


def test_answered_operations_go_and_pending_ones_stay(world: World, host_id: int) -> None:
    operation(world, "of nobody", host_id, None)
    operation(world, "of an ended job", host_id, ended_job(world))
    operation(world, "pending", host_id, None, pending=True)
    world.clock.advance(2 * DAY)
    operation(world, "fresh", host_id, None)
    world.reconcile("ended-jobs")
    assert operations(world) == ["pending", "fresh"]


def test_more_than_one_batch_goes_in_one_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ended_jobs, "AT_ONCE", 3)
    for _ in range(8):
        ended_job(world)
    kept = open_job(world)
    world.clock.advance(2 * DAY)
    fresh = ended_job(world)
    world.reconcile("ended-jobs")
    assert jobs(world) == [kept, fresh]
    with world.reading() as tx:
        assert tx.scalar(select(func.count()).select_from(job).where(job.c.open == 1)) == 1
