"""Statements that are compiled once: same rows, same keys, same errors as SQLAlchemy gives."""

import pytest
from sqlalchemy import Column, DateTime, Integer, MetaData, Table, bindparam, select, update
from sqlalchemy.exc import IntegrityError

from pileus.server.db import changes, rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.account import domain
from pileus.server.db.tables.event import event
from pileus.server.db.tables.job import job
from pileus.server.db.tables.place import cluster, pod, zone
from pileus.server.db.transaction import Database, Tx
from pileus.testing.client import counted_statements


def added(tx: Tx, state: str = "Started") -> int:
    values = {"type": "T", "level": "INFO", "description": "d", "account_id": 1, "domain_id": 1, "user_id": 1}
    return rows.add(tx, event, state=state, created_at=tx.now, **values)


def test_a_row_is_added_with_its_defaults_and_found_as_core_finds_it(db: Database) -> None:
    with db.write() as tx:
        first, second = added(tx), added(tx)
        assert second > first
        found = rows.one(tx, event, id=second)
        assert found is not None
        assert dict(found) == dict(tx.one(select(event).where(event.c.id == second)) or {})
        assert len(found["uuid"]) == 36
        assert found["uuid"] != (rows.one(tx, event, id=first) or {})["uuid"]


def test_lists_of_constants_and_parameters_go_together(db: Database) -> None:
    some = Prepared(
        select(event.c.id).where(event.c.state.in_(["Started", "Completed"]), event.c.id >= bindparam("least"))
    )
    with db.write() as tx:
        first, last = added(tx), added(tx, "Completed")
        added(tx, "Scheduled")
        assert some.scalars(tx, least=first) == [first, last]
        assert some.scalars(tx, least=last) == [last]


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 9])
def test_a_list_is_passed_as_one_parameter_however_long(db: Database, n: int) -> None:
    among = Prepared(select(event.c.id).where(event.c.id.in_(bindparam("ids", expanding=True))).order_by(event.c.id))
    besides = Prepared(
        select(event.c.id)
        .where(event.c.id.not_in(bindparam("ids", expanding=True)), event.c.state == bindparam("the_state"))
        .order_by(event.c.id)
    )
    with db.write() as tx:
        keys = [added(tx, "Listed") for _ in range(9)]
        assert among.scalars(tx, ids=keys[:n]) == keys[:n]
        assert besides.scalars(tx, ids=set(keys[:n]), the_state="Listed") == keys[n:]


def test_lists_of_about_one_length_share_a_statement(db: Database) -> None:
    among = Prepared(select(event.c.id).where(event.c.id.in_(bindparam("ids", expanding=True))))
    with counted_statements(db) as seen, db.read() as tx:
        for n in (5, 6, 7, 8):
            among.all(tx, ids=range(n))
    assert len({statement for statement in seen if "FROM event" in statement}) == 1


def test_a_change_tells_how_many_rows_it_met(db: Database) -> None:
    with db.write() as tx:
        key = added(tx)
        assert rows.change(tx, event, {"id": key, "state": "Started"}, state="Completed") == 1
        assert rows.change(tx, event, {"id": key, "state": "Started"}, state="Completed") == 0
        assert rows.change(tx, event, {"id": key}, state="Completed") == 1, "met, though nothing changed"


def test_a_parameter_that_is_not_passed_is_an_error(db: Database) -> None:
    statement = Prepared(update(event).where(event.c.id == bindparam("the_id")).values(state=bindparam("new_state")))
    with db.write() as tx, pytest.raises(Exception, match="the_id"):
        statement.changed(tx, new_state="x")


def test_a_type_that_converts_values_is_refused(db: Database) -> None:
    table = Table("moments", MetaData(), Column("id", Integer, primary_key=True), Column("at", DateTime))
    with db.read() as tx:
        if tx.connection.dialect.name != "sqlite":
            pytest.skip("only SQLite keeps dates as text")
        with pytest.raises(TypeError, match="converts values"):
            Prepared(select(table)).all(tx)


def test_errors_of_the_driver_come_as_core_raises_them(db: Database) -> None:
    with pytest.raises(IntegrityError), db.write() as tx:
        rows.add(tx, domain, name="x", parent_id=10**9, path="/x/", created_at=tx.now)


def test_listeners_hear_of_prepared_statements(db: Database) -> None:
    with counted_statements(db) as seen, db.read() as tx:
        rows.one(tx, job, id=1)
    assert any(statement.startswith("SELECT job.id") for statement in seen)


def test_a_kept_row_is_read_once_in_a_unit_of_work(db: Database) -> None:
    with db.write() as tx:
        key = added(tx)
    with counted_statements(db) as seen, db.read() as tx:
        assert rows.kept(tx, event, key) is rows.kept(tx, event, key)
        assert rows.kept(tx, event, None) is None
    assert sum("FROM event" in statement for statement in seen) == 1


def test_what_an_attempt_did_is_taken_back_when_it_fails(db: Database) -> None:
    told: list[str] = []
    with db.write() as tx:
        kept = added(tx)
        tx.after_commit(lambda: told.append("before"))
        tx.memo["seen"] = 1
        with pytest.raises(ZeroDivisionError), tx.attempt():
            lost = added(tx)
            tx.memo["seen"] = tx.memo["more"] = 2
            tx.before_commit(lambda: told.append("never"))
            tx.after_commit(lambda: told.append("within"))
            raise ZeroDivisionError
        assert tx.memo == {"seen": 1}
        with tx.attempt():
            tx.after_commit(lambda: told.append("after"))
    with db.read() as tx:
        assert rows.one(tx, event, id=kept) is not None
        assert rows.one(tx, event, id=lost) is None
    assert told == ["before", "after"]


def test_a_prepared_change_of_a_followed_table_is_logged_with_its_row(db: Database) -> None:
    with db.write() as tx:
        rows.change(tx, cluster, {"id": 77}, allocation_state="Disabled")
        assert changes.pending(tx.connection) == frozenset(), "no such row"
        place = {"name": "z", "dns1": "192.0.2.1", "internal_dns1": "192.0.2.1", "network_type": "Basic", "token": "t"}
        zone_id = rows.add(tx, zone, created_at=tx.now, **place)
        ends = {"gateway": "192.0.2.1", "netmask": "255.255.255.0", "start_ip": "192.0.2.2", "end_ip": "192.0.2.9"}
        pod_id = rows.add(tx, pod, name="p", zone_id=zone_id, created_at=tx.now, **ends)
        key = rows.add(tx, cluster, name="c", zone_id=zone_id, pod_id=pod_id, hypervisor="KVM", created_at=tx.now)
        assert changes.pending(tx.connection) == {changes.EVERYTHING}
    with db.write() as tx:
        rows.change(tx, cluster, {"id": key}, allocation_state="Disabled")
        rows.change(tx, event, {"id": 1}, state="Completed")
        assert changes.pending(tx.connection) == {(changes.CLUSTER, key)}


def test_a_prepared_change_of_a_list_of_rows_is_logged_with_each(db: Database) -> None:
    some = Prepared(
        update(cluster).where(cluster.c.id.in_(bindparam("ids", expanding=True))).values(allocation_state="Disabled")
    )
    with db.write() as tx:
        place = {"name": "z", "dns1": "192.0.2.1", "internal_dns1": "192.0.2.1", "network_type": "Basic", "token": "t"}
        zone_id = rows.add(tx, zone, created_at=tx.now, **place)
        ends = {"gateway": "192.0.2.1", "netmask": "255.255.255.0", "start_ip": "192.0.2.2", "end_ip": "192.0.2.9"}
        pod_id = rows.add(tx, pod, name="p", zone_id=zone_id, created_at=tx.now, **ends)
        group = {"zone_id": zone_id, "pod_id": pod_id, "hypervisor": "KVM", "created_at": tx.now}
        keys = [rows.add(tx, cluster, name=name, **group) for name in "abc"]
    with db.write() as tx:
        assert some.changed(tx, ids=keys) == 3
        assert changes.pending(tx.connection) == {(changes.CLUSTER, key) for key in keys}
        assert some.changed(tx, ids=[*keys, *range(1000, 1000 + changes.MOST_ROWS)]) == 3
        assert changes.EVERYTHING in changes.pending(tx.connection)
