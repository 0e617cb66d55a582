"""Jobs that stay open long after their deadline are told of, until they end."""

from collections.abc import Iterator

from sqlalchemy import select

from pileus.server.db.tables.event import alert
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.plan import StepCall, step, workflow
from pileus.server.jobs.submit import Owner, submit, wake
from pileus.server.reconcilers.overdue_jobs import GRACE_SECONDS
from pileus.testing import World

done: set[str] = set()


@step("overduetoy.wait")
def wait(ctx: StepContext, name: str) -> None:
    raise Nap(topic="forward")


@wait.undo
def wait_too(ctx: StepContext, name: str) -> None:
    if name not in done:
        raise Nap(topic="back")


@workflow("overduetoy.waits")
def waits(name: str) -> Iterator[StepCall]:
    yield wait(name=name)


def standing(world: World) -> list[str]:
    with world.reading() as tx:
        return list(tx.execute(select(alert.c.description).where(alert.c.standing == 1)).scalars())


def test_an_alert_stands_while_an_undo_does_not_end_and_goes_when_it_does(world: World) -> None:
    done.clear()
    with world.db.write() as tx:
        ref = submit(tx, waits("one"), Owner(2, 1, 2), command="startVirtualMachine", deadline_seconds=60)
    world.settle()
    assert world.job(ref)["phase"] == "unwind"
    world.reconcile("overdue-jobs")
    assert standing(world) == [], "it has some time to undo what it did"
    world.clock.advance(GRACE_SECONDS + 1)
    world.reconcile("overdue-jobs")
    assert standing(world) == [], "the setting job.cancel.threshold.minutes allows it an hour"
    world.clock.advance(3600)
    world.reconcile("overdue-jobs", "overdue-jobs")
    (text,) = standing(world)
    assert (ref.uuid in text, "startVirtualMachine" in text, "waits for back" in text) == (True, True, True)
    done.add("one")
    with world.db.write() as tx:
        wake(tx, "back")
    world.failure(ref)
    world.reconcile("overdue-jobs")
    assert standing(world) == []


def test_a_job_within_its_time_is_nobodys_business(world: World) -> None:
    with world.db.write() as tx:
        submit(tx, waits("two"), Owner(2, 1, 2), command="x", deadline_seconds=3600)
    assert world.engine.run_one()
    world.clock.advance(3000)
    world.reconcile("overdue-jobs")
    assert standing(world) == []
