"""listVirtualMachines: whose guests, which of them, what is told of each, in how many queries."""

from typing import Any

import pytest
from sqlalchemy import delete, event, insert, select, update
from vm_setup import deployed, row_of, steady_cloud

from pileus.server.api import render
from pileus.server.api.commands.vm import VmResponse
from pileus.server.db.queries import nic as nics
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import nic
from pileus.server.db.tables.vm import vm_stats as vm_stats_table
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, PermissionDenied
from pileus.server.domain.ids import Id, Vm
from pileus.server.services import vm as vm_service
from pileus.server.services import vm_stats
from pileus.testing import World
from pileus.testing.builders import Cloud, root
from pileus.testing.client import Client
from pileus.wire.messages import HostStats, VmStats

FILTERS = (
    "account_name",
    "domain_id",
    "vm_id",
    "vm_ids",
    "name",
    "state",
    "keyword",
    "zone_id",
    "pod_id",
    "host_id",
    "network_id",
    "storage_id",
    "template_id",
    "service_offering_id",
    "hypervisor",
    "group",
    "group_id",
    "key_pair",
    "for_virtual_network",
    "page",
    "page_size",
)


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def alice(world: World) -> Caller:
    return world.account("alice")


@pytest.fixture
def web(world: World, cloud: Cloud, alice: Caller) -> Id[Vm]:
    return deployed(world, alice, cloud, name="web", display_name="Shop", group="front")


@pytest.fixture
def db_vm(world: World, cloud: Cloud, alice: Caller) -> Id[Vm]:
    return deployed(world, alice, cloud, name="db", service_offering_id=world.offering(ram_mib=1024))


def listed(world: World, caller: Caller, **wanted: Any) -> list[str]:
    return [each["name"] for each in page(world, caller, **wanted)[0]]


def page(world: World, caller: Caller, **wanted: Any) -> tuple[list[dict[str, Any]], int]:
    asked = {**dict.fromkeys(FILTERS), "list_all": False, "is_recursive": False, **wanted}
    with world.db.read() as tx:
        found, count = vm_service.list_page(tx, caller, **asked)
        return found.views(), count


def test_each_account_sees_its_own(world: World, cloud: Cloud, alice: Caller, web: Id[Vm]) -> None:
    bob = world.account("bob")

    assert listed(world, alice) == ["web"]
    assert listed(world, bob) == []
    assert listed(world, root()) == []
    assert listed(world, root(), list_all=True) == ["web"]
    assert listed(world, root(), account_name="alice", domain_id=1) == ["web"]
    assert listed(world, bob, list_all=True) == []
    with pytest.raises(PermissionDenied):
        listed(world, bob, account_name="alice", domain_id=1)
    assert listed(world, bob, vm_id=web) == []


def test_a_domain_administrator_sees_the_domain_and_what_is_below(world: World, cloud: Cloud) -> None:
    above = world.domain("above")
    below = world.domain("below", parent_id=above)
    chief = world.account("chief", domain_id=above, type=AccountType.DOMAIN_ADMIN)
    deployed(world, world.account("inside", domain_id=below), cloud, name="inside")
    deployed(world, world.account("outside"), cloud, name="outside")

    assert listed(world, chief, list_all=True) == ["inside"]
    assert listed(world, chief, domain_id=above, is_recursive=True) == ["inside"]
    assert listed(world, chief, domain_id=above) == []


def test_filters_choose(world: World, cloud: Cloud, alice: Caller, web: Id[Vm], db_vm: Id[Vm]) -> None:
    with world.db.write() as tx:
        job_uuid, _ = vm_service.stop(tx, alice, db_vm, forced=True)
    world.result(job_uuid)
    with world.db.read() as tx:
        (network_id,) = nics.networks_of(tx, web)
    other_zone = world.zone()
    for wanted, names in (
        ({"name": "we"}, ["web"]),
        ({"keyword": "SHOP"}, ["web"]),
        ({"keyword": "%"}, []),
        ({"state": "running"}, ["web"]),
        ({"state": "Stopped"}, ["db"]),
        ({"state": "present"}, ["web", "db"]),
        ({"group": "front"}, ["web"]),
        ({"vm_ids": [db_vm]}, ["db"]),
        ({"vm_ids": []}, []),
        ({"zone_id": cloud.zone}, ["web", "db"]),
        ({"zone_id": other_zone}, []),
        ({"pod_id": cloud.pod}, ["web", "db"]),
        ({"host_id": row_of(world, web)["host_id"]}, ["web"]),
        ({"network_id": network_id}, ["web", "db"]),
        ({"storage_id": cloud.pool}, ["web", "db"]),
        ({"template_id": cloud.template}, ["web", "db"]),
        ({"service_offering_id": cloud.offering}, ["web"]),
        ({"hypervisor": "Simulator"}, ["web", "db"]),
        ({"hypervisor": "KVM"}, []),
        ({"for_virtual_network": True}, ["web", "db"]),
        ({"for_virtual_network": False}, []),
    ):
        assert listed(world, alice, **wanted) == names, wanted


def test_an_unknown_state_is_refused(world: World, alice: Caller) -> None:
    with pytest.raises(ParameterError, match="state must be one of"):
        listed(world, alice, state="Asleep")


def test_pages_have_the_count_of_all(world: World, cloud: Cloud, alice: Caller, web: Id[Vm], db_vm: Id[Vm]) -> None:
    views, count = page(world, alice, page=2, page_size=1)

    assert ([each["name"] for each in views], count) == (["db"], 2)


def test_destroyed_guests_are_shown_to_administrators_only(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm]
) -> None:
    with world.db.write() as tx:
        job_uuid, _ = vm_service.destroy(tx, alice, web, expunge=False)
    world.result(job_uuid)

    assert listed(world, alice) == []
    assert listed(world, root(), list_all=True) == ["web"]
    assert listed(world, root(), list_all=True, state="present") == []
    assert listed(world, root(), list_all=True, state="Destroyed") == ["web"]


def test_where_a_guest_runs_is_told_to_administrators_only(world: World, alice: Caller, web: Id[Vm]) -> None:
    inner = {"host_id", "host_name", "instance_name"}

    (mine,), _ = page(world, alice)
    (seen,), _ = page(world, root(), list_all=True)

    assert inner & mine.keys() == set()
    assert inner <= seen.keys()
    assert "broadcast_uri" not in mine["nic"][0]
    assert seen["nic"][0]["broadcast_uri"].startswith("vxlan://")
    assert not {"vnc_password", "user_data", "password"} & seen.keys()


def test_a_longer_page_takes_no_more_queries(world: World, cloud: Cloud, alice: Caller, web: Id[Vm]) -> None:
    def queries() -> int:
        seen: list[str] = []

        def count(*arguments: Any) -> None:
            seen.append(arguments[2])

        event.listen(world.db.reading, "before_cursor_execute", count)
        try:
            page(world, alice)
        finally:
            event.remove(world.db.reading, "before_cursor_execute", count)
        return len(seen)

    queries()  # The first one fills the caches.
    one = queries()
    for _ in range(5):
        deployed(world, alice, cloud)

    assert queries() <= one


def report(world: World, vm_id: int, cpu_seconds: float, received: int = 0) -> None:
    row = row_of(world, vm_id)
    stats = VmStats(row["instance_name"], cpu_seconds, received, 2 * received)
    with world.db.write() as tx:
        uuid = world.uuid(host, row["host_id"])
        vm_stats.reported(tx, HostStats(uuid, 0.25, 1 << 30, 0.5, 10, 20, vms=(stats,)))


def test_a_page_tells_of_each_guest_what_its_own_view_does(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm], db_vm: Id[Vm]
) -> None:
    bare = deployed(world, alice, cloud, name="bare")
    with world.db.write() as tx:
        job_uuid, _ = vm_service.stop(tx, alice, db_vm, forced=True)
        tx.execute(insert(vm_stats_table).values(vm_id=web, cpu_used=12.345, received_bytes=5000, taken_at=tx.now))
        tx.execute(delete(nic).where(nic.c.vm_id == bare))
        first = dict(tx.all(select(nic).where(nic.c.vm_id == web))[0])
        other = {**first, "id": first["id"] + 1000, "uuid": "0-2", "mac": "02:00:00:00:00:99", "ip": "10.9.9.9"}
        # The second device is the default one, and was stored first.
        tx.execute(update(nic).where(nic.c.id == first["id"]).values(device_id=1))
        tx.execute(insert(nic).values({**other, "device_id": 0, "is_default": 0}))
    for caller in (alice, root()):
        client = Client(world.db, caller)
        shown = client.call("listVirtualMachines", listall=True, response="json")["virtualmachine"]
        assert [entry["name"] for entry in shown] == ["web", "db", "bare"]
        with world.db.read() as tx:
            views = [render.fields(VmResponse, vm_service.view(tx, caller, vm_id)) for vm_id in (web, db_vm, bare)]
        jobs = [{name: entry.pop(name) for name in ("jobid", "jobstatus") if name in entry} for entry in shown]
        assert shown == views
        assert jobs == [{}, {"jobid": job_uuid, "jobstatus": 0}, {}]
        assert [[card["ipaddress"] for card in entry["nic"]] for entry in shown] == [
            ["10.9.9.9", first["ip"]],
            [shown[1]["ipaddress"]],
            [],
        ]
        assert shown[0]["ipaddress"] == first["ip"]
        assert "ipaddress" not in shown[2]
        assert ("hostname" in shown[0], shown[0]["cpuused"]) == (caller.is_admin, "12.35%")


def test_load_is_the_growth_of_cpu_time(world: World, alice: Caller, web: Id[Vm]) -> None:
    report(world, web, 10.0)
    world.clock.advance(60)
    report(world, web, 25.0, received=4096)

    (seen,), _ = page(world, alice)

    assert (seen["cpu_used"], seen["network_kbs_read"], seen["network_kbs_write"]) == ("25.00%", 4, 8)


def test_a_counter_that_began_anew_is_no_load(world: World, alice: Caller, web: Id[Vm]) -> None:
    report(world, web, 1000.0)
    world.clock.advance(60)
    report(world, web, 1.0)

    (seen,), _ = page(world, alice)

    assert seen["cpu_used"] == "0.00%"


def test_statistics_of_a_stopped_guest_are_not_told_and_dropped(world: World, alice: Caller, web: Id[Vm]) -> None:
    report(world, web, 10.0)
    with world.db.write() as tx:
        job_uuid, _ = vm_service.stop(tx, alice, web, forced=True)
    world.result(job_uuid)

    (seen,), _ = page(world, alice)
    assert seen["cpu_used"] is None
    world.reconcile("vm-stats")
    with world.db.read() as tx:
        assert tx.all(select(vm_stats_table.c.vm_id)) == []


def test_a_report_of_an_unknown_host_is_nothing(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        vm_stats.reported(tx, HostStats("nobody", 0.1, 1, 0.1, 0, 0))
