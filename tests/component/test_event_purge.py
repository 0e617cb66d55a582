"""Events go when `event.purge.delay` says so, and not what an open job still refers to."""

import pytest
from sqlalchemy import select, update

from pileus.server.config import change, keys
from pileus.server.db.tables.event import event
from pileus.server.db.tables.job import job
from pileus.server.events import record, types
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import Owner, submit
from pileus.server.reconcilers import event_purge
from pileus.testing import World

DAY = 86_400


def happened(world: World, text: str) -> int:
    with world.db.write() as tx:
        return record(tx, type=types.VM_START, description=text, account_id=2, domain_id=1, user_id=2)


def told(world: World) -> list[str]:
    world.reconcile("event-purge")
    with world.reading() as tx:
        return list(tx.execute(select(event.c.description).order_by(event.c.id)).scalars())


def kept_for(world: World, days: int) -> None:
    with world.db.write() as tx:
        change(tx, keys.event_purge_delay, str(days), user_id=2)


def test_events_are_kept_for_good_unless_a_setting_says_how_long(world: World) -> None:
    happened(world, "old")
    world.clock.advance(1000 * DAY)
    happened(world, "new")
    assert told(world) == ["old", "new"]
    kept_for(world, 1001)
    assert told(world) == ["old", "new"]
    kept_for(world, 999)
    assert told(world) == ["new"]


def test_the_event_of_an_open_job_and_the_newest_event_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_purge, "AT_ONCE", 2)
    kept_for(world, 1)
    for number in range(3):
        happened(world, f"old {number}")
    with world.db.write() as tx:
        announced = record(tx, type=types.VM_STOP, description="open", account_id=2, domain_id=1, user_id=2)
        ref = submit(tx, Plan("nothing", ()), Owner(2, 1, 2), command="x", start_event_id=announced)
        tx.execute(update(job).where(job.c.id == ref.id).values(wake_at=None))
    happened(world, "newest")
    world.clock.advance(2 * DAY)
    assert told(world) == ["open", "newest"]
    with world.db.write() as tx:
        tx.execute(update(job).where(job.c.id == ref.id).values(open=None))
    assert told(world) == ["newest"]
