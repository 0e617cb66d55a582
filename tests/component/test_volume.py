"""Volumes: what lists show, and how machines share the fetching of a template."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import select, update
from vm_setup import deployed, row_of, submitted

from pileus.server.db.queries import template_on_pool
from pileus.server.db.queries import volume as volumes
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host, host_operation, storage_pool
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, PermissionDenied
from pileus.server.events import types
from pileus.server.services import vm as vm_service
from pileus.server.services.volume import list_page
from pileus.testing import World
from pileus.testing.builders import root
from pileus.wire.messages import Answer
from pileus.wire.operations import CreateVolume, FetchTemplate, Reason, Refusal

GIB = 1 << 30


def listed(world: World, caller: Caller, **filters: Any) -> list[dict[str, Any]]:
    """listVolumes."""
    names = (
        "volume_ids name kind zone_id pod_id host_id pool_id vm_id state account_name domain_id list_all is_recursive"
        " keyword page page_size"
    )
    with world.db.read() as tx:
        views, found = list_page(tx, caller, **(dict.fromkeys(names.split()) | filters))
    assert found == len(views)
    return views


def asked(world: World, kind: type) -> int:
    """How many operations of a kind were ever asked for."""
    with world.db.read() as tx:
        return len(tx.all(select(host_operation.c.id).where(host_operation.c.kind == kind.__name__)))


@contextmanager
def counting(tx: Tx) -> Iterator[list[str]]:
    """The statements run on the connection of a unit of work."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    sa_event.listen(tx.connection, "before_cursor_execute", note)
    yield statements
    sa_event.remove(tx.connection, "before_cursor_execute", note)


# ---- lists


def test_a_machines_volumes_are_shown_with_all_that_belongs_to_them(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    offering = world.disk_offering("big", size=2 * GIB)
    vm_id = deployed(world, alice, cloud, name="web", disk_offering_id=offering)
    disk, data = listed(world, alice)
    assert (disk["type"], disk["device_id"], disk["state"], disk["size"]) == ("ROOT", 0, "Ready", 64 << 20)
    assert (data["type"], data["device_id"], data["state"], data["size"]) == ("DATADISK", 1, "Ready", 2 * GIB)
    for view in (disk, data):
        assert view["virtual_machine_id"] == row_of(world, vm_id)["uuid"]
        assert (view["vm_name"], view["vm_state"], view["hypervisor"]) == ("web", "Running", "Simulator")
        assert (view["account"], view["storage_type"], view["destroyed"]) == ("alice", "shared", False)
        assert view["attached"]
        assert (view["storage"], view["path"]) == (None, None)
    assert (disk["source_type"], disk["template_id"]) == ("template", disk["source_id"])
    assert disk["service_offering_name"]
    assert data["disk_offering_name"] == "big"
    assert "source_id" not in data
    inner = listed(world, root(), list_all=True)[0]
    assert inner["storage"]
    assert inner["path"].startswith(inner["id"])


def test_filters_narrow_the_list(world: World) -> None:
    cloud, alice = world.cloud(hosts=2), world.account("alice")
    vm_id = deployed(world, alice, cloud, name="web", disk_offering_id=world.disk_offering())
    other = deployed(world, alice, cloud, name="db")
    host_id = row_of(world, vm_id)["host_id"]
    assert len(listed(world, alice)) == 3
    assert len(listed(world, alice, vm_id=vm_id)) == 2
    assert len(listed(world, alice, kind="datadisk")) == 1
    assert len(listed(world, alice, name=f"ROOT-{other}")) == 1
    assert len(listed(world, alice, keyword="root-")) == 2
    assert listed(world, alice, keyword="%") == []
    assert listed(world, alice, state="Allocated") == []
    assert listed(world, alice, zone_id=world.zone()) == []
    on_host = listed(world, root(), list_all=True, host_id=host_id)
    assert {view["vm_name"] for view in on_host} >= {"web"}
    assert len(listed(world, root(), list_all=True, pod_id=cloud.pod, pool_id=cloud.pool)) == 3
    assert listed(world, root(), list_all=True, pod_id=world.pod(cloud.zone)) == []
    for wrong in ({"kind": "floppy"}, {"state": "lost"}):
        with pytest.raises(ParameterError):
            listed(world, alice, **wrong)


def test_nobody_sees_volumes_of_others(world: World) -> None:
    cloud, inner = world.cloud(hosts=1), world.domain("inner")
    alice, bob = world.account("alice", domain_id=inner), world.account("bob")
    chief = world.account("chief", domain_id=inner, type=AccountType.DOMAIN_ADMIN)
    deployed(world, alice, cloud)
    assert len(listed(world, alice)) == 1
    assert listed(world, bob) == listed(world, bob, list_all=True) == []
    assert listed(world, chief) == []
    assert len(listed(world, chief, list_all=True)) == 1
    assert len(listed(world, chief, account_name="alice", domain_id=inner)) == 1
    assert listed(world, root()) == []
    assert len(listed(world, root(), list_all=True)) == 1
    with pytest.raises(PermissionDenied):
        listed(world, bob, account_name="alice", domain_id=inner)


def test_a_page_takes_the_same_number_of_queries_however_long_it_is(world: World) -> None:
    cloud, alice = world.cloud(hosts=2), world.account("alice")
    deployed(world, alice, cloud)
    listed(world, alice)
    needed = []
    for more in (1, 5):
        for _ in range(more):
            deployed(world, alice, cloud)
        with world.db.read() as tx, counting(tx) as statements:
            found = "volume_ids name kind zone_id pod_id host_id pool_id vm_id state account_name domain_id list_all"
            wanted = dict.fromkeys([*found.split(), "is_recursive", "keyword", "page", "page_size"])
            list_page(tx, alice, **wanted)
        needed.append(len(statements))
    assert needed[0] == needed[1]


# ---- a template on a pool


def test_machines_that_start_together_fetch_their_template_once(world: World) -> None:
    cloud, alice = world.cloud(hosts=2), world.account("alice")
    jobs = [submitted(world, alice, cloud)[0] for _ in range(4)]
    for each in jobs:
        world.result(each)
    assert asked(world, FetchTemplate) == 1
    assert asked(world, CreateVolume) == 4
    world.assert_nothing_left()


def test_the_next_machine_clones_what_is_there(world: World) -> None:
    cloud, alice = world.cloud(hosts=2), world.account("alice")
    deployed(world, alice, cloud)
    deployed(world, alice, cloud)
    assert asked(world, FetchTemplate) == 1


def refuse_once(world: World, kind: type, reason: Reason) -> list[int]:
    """Have the next operation of a kind refused; returns the hosts that were asked."""
    hosts: list[int] = []

    def instead(waiting: Any) -> Answer | None:
        if not isinstance(waiting.operation, kind):
            return None
        hosts.append(waiting.host_id)
        if len(hosts) > 1:
            return None
        return Answer(waiting.operation_id, "", refusal=Refusal(reason, f"it is {reason}"))

    world.instead = instead
    return hosts


@pytest.mark.parametrize("kind", [FetchTemplate, CreateVolume])
@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.FAILED])
def test_when_a_host_cannot_another_one_does(world: World, kind: type, reason: Reason) -> None:
    cloud, alice = world.cloud(hosts=2), world.account("alice")
    hosts = refuse_once(world, kind, reason)
    deployed(world, alice, cloud)
    assert len(set(hosts)) == 2
    world.assert_nothing_left()


@pytest.mark.parametrize("kind", [FetchTemplate, CreateVolume])
def test_when_a_pool_is_full_another_one_is_taken(world: World, kind: type) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    world.pool(cloud.cluster)
    refuse_once(world, kind, Reason.NO_ROOM)
    vm_id = deployed(world, alice, cloud)
    with world.db.read() as tx:
        (spec,) = volumes.disk_specs(tx, vm_id)
        (disk,) = volumes.of_vm(tx, vm_id)
    assert (spec.volume, spec.pool, spec.device_id) == (disk.path, disk.pool, 0)
    world.assert_nothing_left()


@pytest.mark.parametrize("kind", [FetchTemplate, CreateVolume])
def test_a_template_that_is_rejected_fails_the_deploy_and_nothing_is_left(world: World, kind: type) -> None:
    cloud, alice = world.cloud(hosts=2), world.account("alice")
    deployed(world, alice, cloud)
    with world.db.write() as tx:
        (on_pool,) = template_on_pool.of_template(tx, cloud.template)
        template_on_pool.lost(tx, on_pool)
    before = world.left()
    hosts = refuse_once(world, kind, Reason.REJECTED)
    code, text = world.failure(submitted(world, alice, cloud)[0])
    assert (code, text) == (534, "it is rejected")
    assert len(hosts) == 1
    world.assert_nothing_left(before)


def test_a_waiting_machine_fetches_the_template_itself_when_the_first_one_fails(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    refuse_once(world, FetchTemplate, Reason.REJECTED)
    first, second = submitted(world, alice, cloud)[0], submitted(world, alice, cloud)[0]
    world.settle()
    phases = sorted(world.job(each)["phase"] for each in (first, second))
    assert phases == ["failed", "succeeded"]
    assert asked(world, FetchTemplate) == 2
    world.assert_nothing_left()


def test_a_pool_that_lost_its_template_gets_it_again(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    deployed(world, alice, cloud)
    for pool in world.hosts.world.pools.values():
        pool.templates.clear()
    deployed(world, alice, cloud)
    assert asked(world, FetchTemplate) == 2


def test_a_host_that_loses_every_template_is_left_for_another_place(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")

    def instead(waiting: Any) -> Answer | None:
        if not isinstance(waiting.operation, CreateVolume):
            return None
        return Answer(waiting.operation_id, "", refusal=Refusal(Reason.MISSING, "no such template"))

    world.instead = instead
    code, text = world.failure(submitted(world, alice, cloud)[0])
    assert code == 533
    assert "no such template" in text
    world.assert_nothing_left()


# ---- sizes, events, expunging


def test_a_clone_that_turns_out_bigger_is_counted_as_such(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    for host_id in cloud.hosts:
        world.hosts.backend(world.uuid(host, host_id)).template_bytes = 128 << 20
    deployed(world, alice, cloud)
    (view,) = listed(world, alice)
    assert view["size"] == 128 << 20
    world.assert_nothing_left()


def test_an_expunged_machine_leaves_its_data_disk_and_takes_its_root_disk_along(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    vm_id = deployed(world, alice, cloud, disk_offering_id=world.disk_offering(size=GIB))
    root_disk = next(view for view in listed(world, alice) if view["type"] == "ROOT")
    with world.db.write() as tx:
        job_uuid, _ = vm_service.destroy(tx, root(), vm_id, expunge=True)
    world.result(job_uuid)
    (left,) = listed(world, alice)
    assert left["type"] == "DATADISK"
    assert left.get("virtual_machine_id") is None
    assert (left["attached"], left["state"]) == (None, "Ready")
    with world.db.read() as tx:
        gone = tx.one(select(volume).where(volume.c.uuid == root_disk["id"]))
        assert gone is not None
        assert (gone["live"], gone["state"]) == (None, "Expunged")
        assert tx.scalar(select(storage_pool.c.allocated_bytes)) == GIB
        told = tx.execute(select(event.c.type).where(event.c.resource_kind == "Volume").order_by(event.c.id)).scalars()
        assert sorted(told) == [types.VOLUME_CREATE, types.VOLUME_CREATE, types.VOLUME_DELETE, types.VOLUME_DETACH]
    world.assert_nothing_left()


def test_a_volume_on_a_host_that_went_down_is_deleted_through_another(world: World) -> None:
    cloud, alice = world.cloud(hosts=2), world.account("alice")
    vm_id = deployed(world, alice, cloud)
    with world.db.write() as tx:
        job_uuid, _ = vm_service.stop(tx, alice, vm_id, forced=True)
    world.result(job_uuid)
    with world.db.write() as tx:
        (disk,) = volumes.of_vm(tx, vm_id)
        from_host = disk.host_id
        tx.execute(update(host).where(host.c.id == from_host).values(state="Down"))
        job_uuid, _ = vm_service.destroy(tx, root(), vm_id, expunge=True)
    world.result(job_uuid)
    assert listed(world, alice) == []
    assert all(not pool.volumes for pool in world.hosts.world.pools.values())
