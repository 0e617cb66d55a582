"""Many writers at once: conflicts are got over, claims are never given twice."""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import DBAPIError

from pileus.server.db.queries import count
from pileus.server.db.tables.account import resource_count
from pileus.server.db.tables.control import generation
from pileus.server.db.tables.job import job
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.topics import hold_topics
from pileus.server.db.transaction import Database, SwallowedConflict, Tx
from pileus.server.domain.account import ROOT_DOMAIN, Resource
from pileus.server.domain.errors import LimitExceeded, ParameterError, ResourceInUse
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.engine import Engine
from pileus.server.jobs.plan import StepCall, step, workflow
from pileus.server.jobs.submit import Owner, submit
from pileus.testing import World
from pileus.testing.database import KINDS

pytestmark = pytest.mark.parametrize("database_kind", KINDS, indirect=True)

SECONDS = 60.0
OWNER = Owner(2, ROOT_DOMAIN, 2)


def at_once(number: int, work: Callable[[int], object]) -> Counter[str]:
    """How the threads ended, by what they returned or the name of what they raised; all begin together."""
    ends: Counter[str] = Counter()
    lock = threading.Lock()
    start = threading.Barrier(number)

    def call(which: int) -> None:
        start.wait(SECONDS)
        try:
            end = str(work(which))
        except Exception as error:
            end = type(error).__name__
        with lock:
            ends[end] += 1

    threads = [threading.Thread(target=call, args=(which,)) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert not any(thread.is_alive() for thread in threads)
    return ends


def put_rows(db: Database, *names: str) -> None:
    with db.write() as tx:
        for name in names:
            tx.execute(insert(generation).values(name=name, n=0))


def numbers(db: Database, *names: str) -> list[int]:
    with db.read() as tx:
        rows = {row["name"]: row["n"] for row in tx.all(select(generation))}
    return [rows[name] for name in names]


def raise_it(tx: Tx, name: str) -> None:
    tx.execute(update(generation).where(generation.c.name == name).values(n=generation.c.n + 1))


class Crossing:
    """Two units of work that lock the same two rows in opposite orders, and meet half way on their first try."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.meet = threading.Barrier(2)
        self.tries: Counter[int] = Counter()
        put_rows(db, "left", "right")

    def cross(self, which: int, tx: Tx) -> None:
        first, second = ("left", "right") if which == 0 else ("right", "left")
        self.tries[which] += 1
        raise_it(tx, first)
        if self.tries[which] == 1 and not self.db.is_sqlite:
            self.meet.wait(SECONDS)
        raise_it(tx, second)


def test_units_of_work_that_block_each_other_both_end_well(db: Database, database_kind: str) -> None:
    crossing = Crossing(db)
    assert at_once(2, lambda which: db.run(lambda tx: crossing.cross(which, tx))) == {"None": 2}
    assert numbers(db, "left", "right") == [2, 2]
    # SQLite has one writer at a time; elsewhere one of the two had to begin again.
    assert crossing.tries.total() == (2 if db.is_sqlite else 3)


def test_what_a_lost_unit_registered_for_after_its_commit_is_not_done(db: Database) -> None:
    crossing = Crossing(db)
    done: list[int] = []

    def work(which: int, tx: Tx) -> None:
        tx.after_commit(lambda: done.append(which))
        crossing.cross(which, tx)

    assert at_once(2, lambda which: db.run(lambda tx: work(which, tx))) == {"None": 2}
    assert sorted(done) == [0, 1]


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "in-a-savepoint"])
def test_a_unit_that_goes_on_after_it_lost_keeps_nothing(db: Database, *, nested: bool) -> None:
    crossing = Crossing(db)

    def careless(which: int) -> None:
        with db.write() as tx:
            try:
                if nested:
                    with tx.connection.begin_nested():
                        crossing.cross(which, tx)
                else:
                    crossing.cross(which, tx)
            except DBAPIError:
                tx.execute(insert(generation).values(name="after", n=1))

    ends = at_once(2, careless)
    if db.is_sqlite:
        assert ends == {"None": 2}
        return
    assert ends["None"] == 1
    assert numbers(db, "left", "right") == [1, 1]
    with db.read() as tx:
        assert tx.scalar(select(func.count()).select_from(generation).where(generation.c.name == "after")) == 0


def test_conflicts_are_not_retried_for_ever(db: Database) -> None:
    tries: list[int] = []

    def always(tx: Tx) -> None:
        tries.append(1)
        raise DBAPIError("UPDATE", None, Deadlock())

    with pytest.raises(DBAPIError):
        db.run(always)
    assert 2 <= len(tries) <= 10


def test_other_errors_are_not_retried(db: Database) -> None:
    tries: list[int] = []

    def wrong(tx: Tx) -> None:
        tries.append(1)
        tx.execute(insert(generation).values(name=None, n=1))

    with pytest.raises(DBAPIError):
        db.run(wrong)
    assert len(tries) == 1


def test_who_lost_a_race_for_a_name_looks_again_and_refuses_in_its_own_words(db: Database) -> None:
    looked = threading.Barrier(8)

    def create(which: int) -> None:
        tries: list[int] = []

        def unless_taken(tx: Tx) -> None:
            tries.append(1)
            if tx.scalar(select(generation.c.n).where(generation.c.name == "name")) is not None:
                raise ParameterError("taken", parameter="name")
            if len(tries) == 1 and not db.is_sqlite:
                looked.wait(SECONDS)
            tx.execute(insert(generation).values(name="name", n=which))

        db.run(unless_taken)

    assert at_once(8, create) == {"None": 1, ParameterError.__name__: 7}


class Deadlock(Exception):
    """What psycopg raises has this attribute."""

    sqlstate = "40P01"


def test_fifty_claims_at_a_limit_of_ten_give_exactly_ten(world: World) -> None:
    owner = world.account(maximum=10)

    def claim(_which: int) -> None:
        world.db.run(lambda tx: count.claim(tx, owner.account_id, Resource.INSTANCE))

    assert at_once(50, claim) == {"None": 10, LimitExceeded.__name__: 40}
    with world.db.read() as tx:
        mine = (resource_count.c.owner_id == owner.account_id, resource_count.c.resource == int(Resource.INSTANCE))
        assert tx.scalar(select(resource_count.c.used).where(resource_count.c.owner == "account", *mine)) == 10


ran: Counter[int] = Counter()
ran_lock = threading.Lock()


@step("conflicttoy.once")
def once(ctx: StepContext, number: int) -> None:
    def counted() -> None:
        with ran_lock:
            ran[number] += 1

    raise_it(ctx.tx, "shared")
    ctx.tx.after_commit(counted)


@workflow("conflicttoy.run")
def run(number: int) -> Iterator[StepCall]:
    yield once(number=number)
    yield once(number=number)


def test_eight_servers_run_every_step_of_every_job_once(db: Database) -> None:
    put_rows(db, "shared")
    ran.clear()
    with db.write() as tx:
        for number in range(40):
            submit(tx, run(number=number), OWNER, command="run")

    def work(which: int) -> str:
        engine = Engine(db, owner=f"server-{which}")
        while engine.run_one():
            pass
        return "ended"

    assert at_once(8, work) == {"ended": 8}
    with db.read() as tx:
        left = tx.scalar(select(func.count()).select_from(job).where(job.c.open == 1))
    if left:
        # A scout may find nothing while others hold all it looked at: whoever comes next takes them.
        work(0)
    assert ran == dict.fromkeys(range(40), 2)
    assert numbers(db, "shared") == [80]


def test_of_eight_jobs_at_once_for_one_guest_one_runs(db: Database) -> None:
    put_rows(db, "shared")

    def send(which: int) -> None:
        def alone(tx: Tx) -> None:
            submit(tx, run(number=which), OWNER, command="run", resource_key="vm:1", queue=False)

        db.run(alone)

    assert at_once(8, send) == {"None": 1, ResourceInUse.__name__: 7}


def test_jobs_that_queue_at_once_for_one_guest_run_one_after_another(db: Database) -> None:
    put_rows(db, "shared")
    ran.clear()

    def send(which: int) -> None:
        plan = run(number=which)
        db.run(lambda tx: submit(tx, plan, OWNER, command="run", resource_key="vm:1"))

    assert at_once(8, send) == {"None": 8}
    with db.read() as tx:
        running = select(func.count()).select_from(job).where(job.c.running_key == "vm:1")
        assert tx.scalar(running) == 1
    engine = Engine(db, owner="server")
    while engine.run_one():
        with db.read() as tx:
            assert tx.scalar(running) <= 1
    assert ran == dict.fromkeys(range(8), 2)


def test_of_eight_lives_at_once_of_one_guest_one_is_stored(world: World) -> None:
    cloud = world.cloud(hosts=2)
    with world.db.write() as tx:
        row = {"name": "guest", "account_id": 2, "domain_id": ROOT_DOMAIN, "zone_id": cloud.zone, "state": "Starting"}
        made = {"service_offering_id": cloud.offering, "hypervisor": "Simulator", "vnc_password": "", "created_at": 1}
        vm_id = tx.insert(insert(vm).values(**row, **made))

    def live(which: int) -> None:
        values = {"vm_id": vm_id, "host_id": cloud.hosts[which % 2], "epoch": which + 1, "state": "Planned"}
        life = insert(vm_incarnation).values(**values, cpu_mhz=1, ram_mib=1, created_at=1)
        world.db.run(lambda tx: tx.insert(life))

    assert at_once(8, live) == {"None": 1, "IntegrityError": 7}


def test_who_holds_a_topic_keeps_others_out_until_its_commit(db: Database) -> None:
    put_rows(db, "seen")
    inside = threading.Event()

    def hold(which: int) -> str:
        with db.write() as tx:
            if which == 0:
                hold_topics(tx, "vm:1", "vm:2")
                inside.set()
                raise_it(tx, "seen")
                return "first"
        assert inside.wait(SECONDS)
        with db.write() as tx:
            hold_topics(tx, "vm:2", "vm:1")
            return f"saw {tx.scalar(select(generation.c.n).where(generation.c.name == 'seen'))}"

    assert at_once(2, hold) == {"first": 1, "saw 1": 1}


def test_swallowing_is_told_by_an_error_of_its_own(db: Database) -> None:
    crossing = Crossing(db)

    def careless(which: int) -> None:
        with db.write() as tx, contextlib.suppress(DBAPIError):
            crossing.cross(which, tx)

    ends = at_once(2, careless)
    assert ends == ({"None": 2} if db.is_sqlite else {"None": 1, SwallowedConflict.__name__: 1})
