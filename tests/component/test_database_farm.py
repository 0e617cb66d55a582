"""Servers of a farm watch each other: the dead are buried and what they held goes on, the living are left alone."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import insert, select, update

from pileus.server.db.queries import server as servers
from pileus.server.db.tables.host import host
from pileus.server.db.tables.job import lease
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.host import HostState
from pileus.server.hosts import liveness, operations, signal
from pileus.server.jobs import hold, reconciler, wakeup
from pileus.server.jobs.hold import Held, LeaseLost, claim
from pileus.server.jobs.plan import Plan, StepCall, step, workflow
from pileus.server.jobs.submit import Owner, submit
from pileus.server.lookout import Lookout
from pileus.server.membership import MISSED, Consequences, Membership
from pileus.testing.clock import FakeClock
from pileus.testing.database import KINDS
from pileus.wire.messages import HostFacts
from pileus.wire.operations import AttachPool
from pileus.wire.places import PoolKind, PoolRef

pytestmark = pytest.mark.parametrize("database_kind", KINDS, indirect=True)

OWNER = Owner(2, 1, 2)
FACTS = HostFacts("Simulator", "1", "127.0.0.1", cpus=2, cpu_mhz=1000, memory_bytes=1 << 30)
POOL = PoolRef("p1", PoolKind.SHARED_MOUNT_POINT, "/pool")


@step("farmtoy.nothing")
def nothing(ctx: object) -> None:
    return None


@workflow("farmtoy.job")
def toy() -> Iterator[StepCall]:
    yield nothing()


class Member:
    """A server of the farm, and what became of it and of others."""

    def __init__(self, db: Database, name: str) -> None:
        self.dead: list[str] = []
        self.given_up = self.superseded = 0
        self.membership = Membership(
            db,
            name=name,
            address="192.0.2.1:8080",
            version="1",
            consequences=Consequences(self._dead, self._given_up, self._superseded),
        )
        self.membership.enter()
        self.membership.look()

    def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.membership.look()

    def _dead(self, tx: Tx, name: str) -> None:
        self.dead.append(name)

    def _given_up(self) -> None:
        self.given_up += 1

    def _superseded(self) -> None:
        self.superseded += 1


def held_job(db: Database, owner: str) -> Held:
    with db.write() as tx:
        submit(tx, toy(), OWNER, command="toy")
    held = claim(db, owner)
    assert held is not None
    return held


def test_a_server_that_beats_is_alive_however_its_clock_goes(db: Database, clock: FakeClock) -> None:
    one, two = Member(db, "one"), Member(db, "two")
    for _ in range(2 * MISSED):
        one.look()
        clock.advance(3600)
        two.look()
    for _ in range(2 * MISSED):  # The clock stands.
        one.look()
        two.look()
    assert (one.dead, two.dead) == ([], [])
    assert one.membership.others == {"two"}
    assert two.membership.others == {"one"}


def test_the_jobs_and_reconcilers_of_a_dead_server_go_on_at_once_and_its_late_writes_are_refused(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Member(db, "one"), Member(db, "two")
    held = held_job(db, "two")
    monkeypatch.setitem(reconciler.reconcilers, "toy", reconciler.Reconciler("toy", 3600, lambda _: None))
    with db.write() as tx:
        tx.execute(insert(lease).values(name="toy", owner="two", token=5, until_at=tx.now + 30_000, ran_at=-1))
    one.look(MISSED)
    assert one.dead == []
    assert claim(db, "one") is None
    one.look()
    assert one.dead == ["two"]
    assert one.membership.others == frozenset()
    again = claim(db, "one")
    assert again is not None
    assert again.id == held.id
    with db.read() as tx:
        assert "toy" in reconciler.due(tx)
    with pytest.raises(LeaseLost), db.write() as tx:
        hold.keep(tx, held)
    one.look(2 * MISSED)
    assert one.dead == ["two"]
    two.look()
    assert (two.given_up, two.superseded) == (1, 0)
    one.look(MISSED)
    assert one.membership.others == {"two"}


def test_a_token_that_was_taken_away_is_worth_nothing_even_before_another_claims(db: Database) -> None:
    held = held_job(db, "two")
    with db.write() as tx:
        assert hold.take_away(tx, "two") == 1
    with pytest.raises(LeaseLost), db.write() as tx:
        hold.keep(tx, held)
    hold.let_go(db, held)
    assert claim(db, "one") is not None


def test_a_server_that_comes_again_takes_its_own_jobs_back_at_once(db: Database) -> None:
    Member(db, "one")
    Member(db, "two")
    held = held_job(db, "two")
    theirs = held_job(db, "one")
    again = Member(db, "two")
    back = claim(db, "two")
    assert back is not None
    assert back.id == held.id
    assert claim(db, "two") is None
    with pytest.raises(LeaseLost), db.write() as tx:
        hold.keep(tx, held)
    with db.write() as tx:
        hold.keep(tx, theirs)
    assert again.superseded == 0


def test_of_two_processes_with_one_name_the_later_stays(db: Database, clock: FakeClock) -> None:
    first, second = Member(db, "one"), Member(db, "one")
    first.look()
    assert (first.superseded, first.given_up) == (1, 0)
    second.look(2)
    assert second.superseded == 0
    # Leaving, the first does not put the second out.
    assert first.membership.leave()
    second.look()
    assert second.given_up == 0


def test_a_beat_at_the_last_moment_saves(db: Database) -> None:
    one, two = Member(db, "one"), Member(db, "two")
    one.look(MISSED)
    two.look()
    one.look()
    assert one.dead == []


def test_of_several_that_see_a_server_dead_one_takes_over(db: Database) -> None:
    one, two = Member(db, "one"), Member(db, "two")
    Member(db, "three")
    for _ in range(MISSED + 2):
        one.look()
        two.look()
    assert one.dead + two.dead == ["three"]


def test_who_leaves_is_not_buried(db: Database) -> None:
    one, two = Member(db, "one"), Member(db, "two")
    one.look()
    assert two.membership.leave()
    one.look(2 * MISSED)
    assert one.membership.others == frozenset()
    assert one.dead == []


def test_hosts_of_a_dead_server_stay_up_until_none_has_taken_them_for_long(db: Database, clock: FakeClock) -> None:
    with db.write() as tx:
        stays, moves = (_host(tx, name) for name in ("stays", "moves"))
        for host_id in (stays, moves):
            liveness.connected(tx, {host_id: FACTS}, "two")
        liveness.connected(tx, {moves: FACTS}, "one")
    with db.write() as tx:
        liveness.released(tx, "two")
        # What is silent here may speak elsewhere.
        assert liveness.still_held(tx, "two", [stays, moves]) == []
        assert liveness.still_held(tx, "one", [stays, moves]) == [moves]
        assert liveness.not_come_back(tx, since=0) == []
    clock.advance(liveness.PATIENCE_SECONDS)
    with db.write() as tx:
        # Without a server that listened all the time, nobody could come back.
        assert liveness.not_come_back(tx, since=tx.now - 1) == []
        assert liveness.not_come_back(tx, since=0) == [stays]
        assert liveness.not_come_back(tx, since=0, among=[moves]) == []
        assert liveness.lost_line(tx, [stays]) == [liveness.Change(stays, HostState.DISCONNECTED)]
        assert liveness.not_come_back(tx, since=0) == []
        assert liveness.connected(tx, {stays: FACTS}, "one") == [liveness.Change(stays, HostState.UP)]


def test_a_lookout_tells_of_each_operation_once_and_of_a_job_until_it_is_taken(db: Database) -> None:
    told: list[str] = []

    def jobs() -> None:
        told.append("jobs")

    lookout = Lookout(db, in_company=lambda: True)
    with db.write() as tx:
        tx.execute(update(lease).values(ran_at=tx.now))
        host_id = _host(tx, "h")
    lookout.look()
    with db.write() as tx:
        submit(tx, Plan("nothing", ()), OWNER, command="nothing")
        operations.request(tx, host_id, AttachPool(POOL), operation_id="o1", queue="q")
    wakeup.listen(jobs)
    ignore = signal.listen({signal.About.REQUESTED: lambda host_id: told.append(f"host {host_id}")})
    try:
        lookout.look()
        assert sorted(told) == [f"host {host_id}", "jobs"]
        told.clear()
        lookout.look()
        assert told == ["jobs"]
        assert claim(db, "one") is not None
        told.clear()
        lookout.look()
        assert told == []
    finally:
        wakeup.ignore(jobs)
        ignore()


def test_a_membership_that_runs_beats_by_itself_and_leaves_no_row(db: Database) -> None:
    member = Membership(db, name="two", address="a", version="1", beat_seconds=0.01)
    member.enter()
    pause, until = threading.Event(), time.monotonic() + 30
    seen = {beat_of(db, "two")}
    member.start()
    try:
        while len(seen) < 4:
            assert time.monotonic() < until, "it does not beat"
            pause.wait(0.01)
            seen.add(beat_of(db, "two"))
    finally:
        assert member.leave()
    with db.read() as tx:
        assert servers.all_there(tx) == []


def beat_of(db: Database, name: str) -> int:
    with db.read() as tx:
        return next(seen.seen_at for seen in servers.all_there(tx) if seen.name == name)


def _host(tx: Tx, name: str) -> int:
    zone_id = tx.scalar(select(zone.c.id).limit(1))
    if zone_id is None:
        zone_id = tx.insert(
            insert(zone).values(
                name="z", dns1="192.0.2.1", internal_dns1="192.0.2.1", network_type="Advanced", token="t", created_at=1
            )
        )
    values = {"zone_id": zone_id, "name": name, "kind": "Routing", "state": "Connecting", "hypervisor": "Simulator"}
    return tx.insert(insert(host).values(**values, created_at=1))
