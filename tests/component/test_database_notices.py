"""Servers of a farm hear each other at once on PostgreSQL; elsewhere nothing is carried, and nothing breaks."""

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text

from pileus.server.db.clock import SystemClock
from pileus.server.db.notices import Notices
from pileus.server.db.transaction import Database
from pileus.server.farm import Farm
from pileus.server.hosts import signal
from pileus.server.jobs import reconciler, wakeup
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import Owner, submit
from pileus.testing.database import KINDS

SECONDS = 30.0
OWNER = Owner(2, 1, 2)

on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


class Server:
    """Another server of the farm: what it hears."""

    def __init__(self, db: Database) -> None:
        self.db = Database(db.url.render_as_string(hide_password=False), SystemClock())
        self.heard: queue.Queue[str] = queue.Queue()
        self.notices = Notices(self.db, self.heard.put)

    def next(self) -> str:
        return self.heard.get(timeout=SECONDS)


@contextmanager
def servers(db: Database, number: int) -> Iterator[list[Server]]:
    made = [Server(db) for _ in range(number)]
    try:
        for server in made:
            server.notices.start()
        for server in made:
            assert server.notices.connected.wait(SECONDS)
        yield made
    finally:
        for server in made:
            assert server.notices.stop()
            server.db.dispose()


@contextmanager
def farm_of(db: Database) -> Iterator[Farm]:
    farm = Farm(db)
    farm.start()
    try:
        assert farm.notices.connected.wait(SECONDS)
        yield farm
    finally:
        assert farm.stop()


@on_postgresql
def test_all_others_hear_what_one_says_and_it_does_not_hear_itself(db: Database) -> None:
    with servers(db, 3) as (one, two, three):
        one.notices.send("first")
        assert two.next() == three.next() == "first"
        two.notices.send("second")
        # Had it heard itself, that would have come first.
        assert one.next() == three.next() == "second"
        assert two.heard.empty()


@on_postgresql
def test_a_flood_of_the_same_is_told_in_few_words_and_the_last_is_not_lost(db: Database) -> None:
    with servers(db, 2) as (one, two):
        for _ in range(5000):
            one.notices.send("flood")
        one.notices.send("last")
        heard = []
        while not heard or heard[-1] != "last":
            heard.append(two.next())
        assert "flood" in heard
        assert len(heard) < 1000


@on_postgresql
def test_who_lost_the_connection_hears_again_and_says_what_waited(db: Database) -> None:
    with servers(db, 2) as (one, two):
        lost, pause = threading.Event(), threading.Event()

        def listen() -> None:
            while two.notices.connected.is_set():
                pause.wait(0.01)
            lost.set()

        watcher = threading.Thread(target=listen)
        watcher.start()
        with db.read() as tx:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
            tx.execute(text(others + " AND pid <> pg_backend_pid()"))
        assert lost.wait(SECONDS)
        watcher.join(SECONDS)
        for server in (one, two):
            assert server.notices.connected.wait(SECONDS)
        one.notices.send("again")
        assert two.next() == "again"


@on_postgresql
def test_a_job_a_reconciler_and_a_host_of_one_server_wake_the_others(db: Database) -> None:
    with servers(db, 1) as (other,), farm_of(db):
        with db.write() as tx:
            submit(tx, Plan("nothing", ()), OWNER, command="nothing")
            assert other.heard.empty()
        assert other.next() == wakeup.JOBS
        with db.write() as tx:
            reconciler.trigger(tx, "anything")
        assert other.next() == wakeup.RECONCILERS
        signal.announce_requested(7)
        assert other.next() == "requested:7"
        signal.announce_removed(8)
        assert other.next() == "removed:8"


@on_postgresql
def test_what_another_server_says_wakes_this_one_and_is_not_told_back(db: Database) -> None:
    woken: queue.Queue[str] = queue.Queue()

    def jobs() -> None:
        woken.put("jobs")

    wakeup.listen(jobs)
    ignore = signal.listen(
        {
            signal.About.REQUESTED: lambda host_id: woken.put(f"requested {host_id}"),
            signal.About.REMOVED: lambda host_id: woken.put(f"removed {host_id}"),
            signal.About.RECONNECT: lambda host_id: woken.put(f"reconnect {host_id}"),
        }
    )
    try:
        with servers(db, 1) as (other,), farm_of(db) as farm:
            for notice in ("jobs", "requested:3", "removed:4", "reconnect:5"):
                wakes = notice.replace(":", " ")
                other.notices.send(notice)
                assert woken.get(timeout=SECONDS) == wakes
            other.notices.send("requested:no number")
            other.notices.send("of a later version")
            farm.notices.send("end")
            assert other.next() == "end"
            assert woken.empty()
    finally:
        wakeup.ignore(jobs)
        ignore()


@on_postgresql
def test_a_transaction_that_is_rolled_back_wakes_nobody(db: Database) -> None:
    with servers(db, 1) as (other,), farm_of(db) as farm:
        with pytest.raises(KeyError), db.write() as tx:
            submit(tx, Plan("nothing", ()), OWNER, command="nothing")
            raise KeyError
        farm.notices.send("end")
        assert other.next() == "end"


@pytest.mark.parametrize("database_kind", [kind for kind in KINDS if kind != "postgresql"], indirect=True)
def test_databases_without_notices_are_none_the_worse(db: Database) -> None:
    farm = Farm(db)
    farm.start()
    assert not farm.notices.carried
    with db.write() as tx:
        submit(tx, Plan("nothing", ()), OWNER, command="nothing")
    signal.announce_requested(7)
    assert farm.stop()
