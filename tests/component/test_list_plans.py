"""The hot lists walk an index of what is live, in their order: no scan of a table, no sort, on SQLite.

Plans are those of a filled database that nobody has analyzed, as SQLite's are in the field.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from pileus.server.domain.account import AccountType
from pileus.testing.client import Client, counted_statements
from pileus.testing.database import using
from pileus.testing.fill import Shape, fill
from pileus.testing.world import World

SHAPE = Shape(domains=3, accounts=6, networks=6, hosts=6, vms=30, removed_vms=30, volumes=40)
BIG = (
    *("account", "domain", "host", "network", "nic", "users", "vm", "volume"),
    *("vm_stats", "host_stats", "host_capacity", "resource_count"),
)
"""Tables with a row for each of very many things."""

HOT = ("listAccounts", "listDomains", "listHosts", "listNetworks", "listVirtualMachines", "listVolumes")


@pytest.fixture
def full() -> Iterator[World]:
    with using("sqlite"), World.open() as world:
        fill(world.db, world.cloud(), SHAPE)
        yield world


def plans(world: World, client: Client, command: str, **asked: Any) -> list[tuple[str, str]]:
    """Every SELECT of a call with the steps of its plan."""
    with counted_statements(world.db) as seen:
        client.call(command, **asked)
    found = []
    with world.db.reading.connect() as connection:
        for statement in seen:
            if statement.startswith("SELECT"):
                asked_for = ("[]",) * statement.count("?")
                steps = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", asked_for).all()
                found += [(step[3], statement) for step in steps]
    assert found
    return found


def amiss(steps: list[tuple[str, str]], *, sorts: bool = False) -> list[str]:
    """Steps that read the whole of a big table, or sort what has an order already."""
    scans = re.compile(rf"SCAN ({'|'.join(BIG)})\b")
    return [
        f"{step}: {statement}"
        for step, statement in steps
        if scans.match(step) or (not sorts and "TEMP B-TREE FOR ORDER BY" in step)
    ]


@pytest.mark.parametrize("command", HOT)
def test_a_default_page_walks_an_index_of_what_is_live(full: World, command: str) -> None:
    client = Client(full.db)
    listall = {} if command in ("listHosts", "listDomains") else {"listall": True}
    assert not amiss(plans(full, client, command, page=1, pagesize=5, **listall))


@pytest.mark.parametrize("command", ["listAccounts", "listNetworks", "listVirtualMachines", "listVolumes"])
def test_the_bounds_of_an_account_or_a_domain_have_an_index(full: World, command: str) -> None:
    client = Client(full.db)
    one = client.call("listAccounts", listall=True, page=1, pagesize=5)["account"][-1]
    assert not amiss(plans(full, client, command, domainid=one["domainid"], page=1, pagesize=1))
    if command != "listAccounts":
        asked = {"account": one["name"], "domainid": one["domainid"], "page": 1, "pagesize": 1}
        # An account's own networks and the shared ones are few, found by key, then sorted.
        assert not amiss(plans(full, client, command, **asked), sorts=command == "listNetworks")


FILTERS = {
    "listHosts": ("zoneid", "state", "keyword", "name"),
    "listNetworks": ("zoneid", "keyword"),
    "listVirtualMachines": ("zoneid", "state", "keyword", "name"),
    "listVolumes": ("zoneid", "state", "keyword", "name"),
}


@pytest.mark.parametrize(("command", "asked"), [(command, each) for command, some in FILTERS.items() for each in some])
def test_filters_read_no_removed_row(full: World, command: str, asked: str) -> None:
    client = Client(full.db)
    values = {"zoneid": client.call("listZones")["zone"][-1]["id"], "keyword": "o", "name": "vm-3"}
    values["state"] = {"listHosts": "Up", "listVolumes": "Ready"}.get(command, "Running")
    # Several indexes may do; rows that match few are sorted sooner than walked in order.
    assert not amiss(plans(full, client, command, page=1, pagesize=1, **{asked: values[asked]}), sorts=True)


def test_a_domain_administrators_page_walks_an_index(full: World) -> None:
    rules = full.account("ruler", domain_id=full.domain("ruled"), type=AccountType.DOMAIN_ADMIN)
    client = Client(full.db, rules)
    for command in ("listVirtualMachines", "listVolumes", "listNetworks"):
        steps = plans(full, client, command, listall=True, page=1, pagesize=1)
        # Which domains are theirs is a look at the domains' paths.
        assert not [step for step in amiss(steps, sorts=True) if not step.startswith("SCAN domain")]


def test_the_check_sees_a_scan_and_a_sort(full: World) -> None:
    with full.db.reading.connect() as connection:
        steps = [
            (step[3], "")
            for statement in ("SELECT * FROM vm WHERE name = 'x'", "SELECT * FROM host WHERE live = 1 ORDER BY name")
            for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
        ]
    assert len(amiss(steps)) == 2
