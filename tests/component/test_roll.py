"""Rolls: lists that are known by their keys say at every moment what the table says."""

import random
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from pileus.server.db.queries import page, roll
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.account import account
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Database, Tx
from pileus.server.db.transition import transition
from pileus.server.domain.vm import VM, VmState
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, counted_statements
from pileus.testing.fill import Shape, fill
from pileus.testing.world import World

FEW = Shape(domains=2, accounts=3, networks=3, hosts=2, vms=40, removed_vms=17, running=0.5)
SIZE = 7


@pytest.fixture
def cloud(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """A cloud in which lists of more than a few guests have rolls."""
    monkeypatch.setattr(roll, "LONG", 5)
    monkeypatch.setattr(page, "LONG", 5)
    monkeypatch.setattr(roll, "_STRIDE", 10)
    made = world.cloud()
    fill(world.db, made, FEW)
    yield made


def shown(client: Client, **asked: Any) -> tuple[list[str], int]:
    """Names of all guests on all pages, and what was said of their number."""
    found: list[str] = []
    for number in range(1, 100):
        body = client.call("listVirtualMachines", page=number, pagesize=SIZE, **asked)
        found += [entry["name"] for entry in body.get("virtualmachine", [])]
        if len(found) >= body.get("count", 0):
            return found, int(body.get("count", 0))
    raise AssertionError("pages without end")


def there(database: Database, *conditions: Any) -> list[str]:
    """What lists should show, straight from the table."""
    with database.read() as tx:
        rows = select(vm.c.name).where(vm.c.live == 1, vm.c.kind == "User", *conditions).order_by(vm.c.id)
        return list(tx.execute(rows).scalars())


def another(tx: Tx, name: str, **values: Any) -> int:
    """One more guest, like the last one."""
    row = dict(tx.all(select(vm).where(vm.c.live == 1).order_by(vm.c.id.desc()).limit(1))[0])
    for left_out in ("id", "uuid", "roll", "created_at"):
        del row[left_out]
    return vms.add(tx, **{**row, "name": name, "name_key": name, "state": str(VmState.STOPPED), **values})


def has_roll(world: World) -> bool:
    with world.db.read() as tx:
        return bool(roll._rolls(tx)._kept)


def test_pages_and_count_follow_every_change(world: World, cloud: Cloud) -> None:
    client, chance = Client(world.db), random.Random(7)
    with world.db.read() as tx:
        owner = tx.one(select(account).where(account.c.name.like("tenant-%")).limit(1))
    assert owner is not None
    whose = {"account": owner["name"], "domainid": owner["domain_id"], "listall": None}
    for step in range(25):
        with world.db.write() as tx:
            ids = list(tx.execute(select(vm.c.id).where(vm.c.live == 1, vm.c.kind == "User")).scalars())
            what = chance.choice(("add", "remove", "destroy", "recover", "nothing"))
            if what == "add":
                another(tx, f"more-{step}")
            elif what == "remove":
                vms.remove(tx, chance.choice(ids))
            elif what == "destroy":
                transition(tx, vm, chance.choice(ids), VM, VmState.DESTROYED)
            elif what == "recover":
                transition(tx, vm, chance.choice(ids), VM, VmState.STOPPED, frm=VmState.DESTROYED)
        everything = there(world.db)
        assert shown(client, listall=True) == (everything, len(everything)), f"step {step}: {what}"
        theirs = there(world.db, vm.c.account_id == owner["id"])
        assert shown(client, **whose) == (theirs, len(theirs)), f"step {step}: {what}"
        present = there(world.db, vm.c.state.not_in(["Destroyed", "Expunging"]))
        assert shown(client, listall=True, state="present") == (present, len(present)), f"step {step}: {what}"
    assert has_roll(world)


def test_a_destroyed_guest_leaves_its_owners_list_and_comes_back_when_recovered(world: World, cloud: Cloud) -> None:
    alice = world.account("alice")
    owner = {"account_id": alice.account_id, "domain_id": alice.domain_id}
    with world.db.write() as tx:
        ids = [another(tx, f"alice-{number}", **owner) for number in range(9)]
    client = Client(world.db, alice)
    names = [f"alice-{number}" for number in range(9)]
    assert shown(client) == (names, 9)
    assert has_roll(world)
    with world.db.write() as tx:
        assert transition(tx, vm, ids[4], VM, VmState.DESTROYED, frm=VmState.STOPPED)
    assert shown(client) == (names[:4] + names[5:], 8)
    with world.db.write() as tx:
        assert transition(tx, vm, ids[4], VM, VmState.STOPPED, frm=VmState.DESTROYED)
    assert shown(client) == (names, 9)


def test_what_was_rolled_back_is_in_no_list(world: World, cloud: Cloud) -> None:
    client = Client(world.db)
    before = shown(client, listall=True)
    with pytest.raises(RuntimeError), world.db.write() as tx:
        another(tx, "never")
        raise RuntimeError
    assert shown(client, listall=True) == before


def test_a_server_never_answers_with_another_ones_past(world: World, cloud: Cloud) -> None:
    ours = Client(world.db)
    before = shown(ours, listall=True)
    assert has_roll(world)
    other = Database(world.db.url.render_as_string(hide_password=False), world.clock)
    try:
        with other.write() as tx:
            made = another(tx, "theirs")
        assert shown(ours, listall=True) == ([*before[0], "theirs"], before[1] + 1)
        theirs = Client(other)
        assert shown(theirs, listall=True) == ([*before[0], "theirs"], before[1] + 1)
        with world.db.write() as tx:
            vms.remove(tx, made)
        assert shown(theirs, listall=True) == before
    finally:
        other.dispose()


def test_more_changes_than_can_be_followed_write_the_roll_anew(
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roll, "_MOST_CHANGES", 3)
    client = Client(world.db)
    shown(client, listall=True)
    with world.db.write() as tx:
        for number in range(6):
            another(tx, f"many-{number}")
    everything = there(world.db)
    assert shown(client, listall=True) == (everything, len(everything))


def test_a_roll_that_follows_a_change_reads_marked_rows_alone(world: World, cloud: Cloud) -> None:
    if not world.db.is_sqlite:
        pytest.skip("plans of SQLite")
    client = Client(world.db)
    shown(client, listall=True)
    with world.db.write() as tx:
        another(tx, "more")
    with counted_statements(world.db) as seen:
        client.call("listVirtualMachines", listall=True, page=1, pagesize=5)
    (statement,) = [text for text in seen if "vm.roll >" in text]
    with world.db.reading.connect() as connection:
        asked = ("1",) * statement.count("?")
        plan = [step[3] for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", asked).all()]
    assert plan == ["SEARCH vm USING INDEX ix_vm_roll (roll>?)"]


def test_the_least_used_roll_goes_when_keys_are_too_many(
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roll, "_MOST_KEYS", 50)
    client = Client(world.db)
    shown(client, listall=True)
    shown(client, listall=True, zoneid=world.uuid(zone, cloud.zone))
    with world.db.read() as tx:
        assert len(roll._rolls(tx)._kept) == 1
    everything = there(world.db)
    assert shown(client, listall=True) == (everything, len(everything))


def test_a_page_costs_the_same_statements_wherever_it_lies_and_counts_nothing(world: World, cloud: Cloud) -> None:
    client = Client(world.db)
    shown(client, listall=True)
    seen = []
    for number in (1, 2):
        with counted_statements(world.db) as statements:
            client.call("listVirtualMachines", listall=True, page=number, pagesize=20)
        seen.append(list(statements))
    assert len(seen[0]) == len(seen[1])
    assert not [text for text in seen[1] if "count(" in text or "OFFSET ?" in text]


def test_a_filter_of_what_changes_without_a_mark_has_no_roll(world: World, cloud: Cloud) -> None:
    client = Client(world.db)
    for asked in ({"state": "Running"}, {"keyword": "vm"}, {"name": "vm"}):
        found, count = shown(client, listall=True, **asked)
        assert count == len(found) > 5
    assert not has_roll(world)
    with world.db.write() as tx:
        first = tx.scalar(select(vm.c.id).where(vm.c.live == 1, vm.c.state == "Running").limit(1))
        transition(tx, vm, first, VM, VmState.STOPPING, frm=VmState.RUNNING)
    running = there(world.db, vm.c.state == "Running")
    assert shown(client, listall=True, state="Running") == (running, len(running))
