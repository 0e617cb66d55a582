"""deployVirtualMachine: what it makes, what it refuses, and that a refusal leaves nothing."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from vm_setup import deployed, refuse, row_of, steady_cloud, submitted

from pileus.server.config import change, keys
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import nic
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template, template_copy
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import (
    InsufficientCapacity,
    LimitExceeded,
    ParameterError,
    PermissionDenied,
    PileusError,
)
from pileus.server.domain.vm import VmState
from pileus.server.hosts.operations import Waiting
from pileus.server.services import vm as vm_service
from pileus.server.services.vm_deploy import MOST_USER_DATA_BYTES
from pileus.testing import World
from pileus.testing.builders import GIB, Cloud, root
from pileus.wire.operations import Reason, StartVm


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def alice(world: World) -> Caller:
    return world.account("alice")


def view(world: World, caller: Caller, vm_id: Any) -> dict[str, Any]:
    with world.db.read() as tx:
        return vm_service.view(tx, caller, vm_id)


def refused(world: World, caller: Caller, cloud: Cloud, kind: type[PileusError], **wishes: Any) -> PileusError:
    before = world.left()
    with pytest.raises(kind) as error:
        submitted(world, caller, cloud, **wishes)
    world.assert_nothing_left(before)
    return error.value


def test_a_deployed_guest_runs_with_its_address_disk_and_names(world: World, cloud: Cloud, alice: Caller) -> None:
    vm_id = deployed(world, alice, cloud, name="web", display_name="The web", group="front")

    seen = view(world, root(), vm_id)
    assert (seen["state"], seen["name"], seen["display_name"], seen["group"]) == ("Running", "web", "The web", "front")
    assert seen["instance_name"] == f"i-{alice.account_id}-{vm_id}-VM"
    assert seen["nic"][0]["ip_address"] == seen["ip_address"]
    assert seen["nic"][0]["is_default"]
    assert seen["for_virtual_network"] is True
    assert len(world.hosts.world.running(seen["instance_name"])) == 1
    world.assert_nothing_left()


def test_names_default_to_the_instance_name(world: World, cloud: Cloud, alice: Caller) -> None:
    seen = view(world, root(), deployed(world, alice, cloud))

    assert seen["name"] == seen["display_name"] == seen["instance_name"]


def test_the_rows_are_there_before_anything_ran(world: World, cloud: Cloud, alice: Caller) -> None:
    _, vm_id = submitted(world, alice, cloud, name="web")

    seen = view(world, alice, vm_id)
    assert seen["state"] == "Starting"
    assert seen["nic"][0]["mac_address"].startswith("02:00:")
    assert seen["ip_address"] is not None
    assert world.hosts.delivered == []


def test_a_data_disk_takes_the_size_asked_for(world: World, cloud: Cloud, alice: Caller) -> None:
    offering = world.disk_offering(size=0, customized=1)

    vm_id = deployed(world, alice, cloud, disk_offering_id=offering, size_gib=3)

    with world.db.read() as tx:
        rows = tx.all(select(volume).where(volume.c.vm_id == vm_id).order_by(volume.c.device_id))
    assert [(row["kind"], row["device_id"], row["state"]) for row in rows] == [
        ("ROOT", 0, "Ready"),
        ("DATADISK", 1, "Ready"),
    ]
    assert rows[1]["size_bytes"] == 3 * GIB
    world.assert_nothing_left()


def test_cards_have_the_rates_of_the_settings_where_no_offering_sets_one(
    world: World, cloud: Cloud, alice: Caller
) -> None:
    with world.db.write() as tx:
        change(tx, keys.vm_network_throttling_rate, "7", user_id=2)
        change(tx, keys.network_throttling_rate, "9", user_id=2)
    started: list[StartVm] = []

    def look(waiting: Waiting) -> None:
        if isinstance(waiting.operation, StartVm):
            started.append(waiting.operation)

    world.instead = look
    vm_id = deployed(world, alice, cloud)
    with world.db.write() as tx:
        vm_service.stop(tx, alice, vm_id, forced=False)
    world.settle()
    with world.db.write() as tx:
        tx.execute(update(nic).where(nic.c.vm_id == vm_id).values(is_default=0))
        vm_service.start(tx, alice, vm_id, host_id=None)
    world.settle()
    assert [operation.vm.nics[0].rate_mbps for operation in started] == [7, 9]


def test_a_guest_may_be_created_without_being_started(world: World, cloud: Cloud, alice: Caller) -> None:
    vm_id = deployed(world, alice, cloud, start=False)

    assert row_of(world, vm_id)["state"] == VmState.STOPPED
    with world.db.write() as tx:
        job_uuid, _ = vm_service.start(tx, alice, vm_id, host_id=None)
    world.result(job_uuid)
    assert row_of(world, vm_id)["state"] == VmState.RUNNING
    world.assert_nothing_left()


def test_a_password_is_told_once_by_the_job(world: World, cloud: Cloud, alice: Caller) -> None:
    with world.db.write() as tx:
        tx.execute(update(template).values(password_enabled=1))
    job_uuid, vm_id = submitted(world, alice, cloud)

    password = world.result(job_uuid)["password"]

    assert len(password) >= 8
    with world.db.read() as tx:
        data = vms.guest_data_of(tx, vm_id)
    assert data is not None
    assert data["password"] == password
    assert "password" not in view(world, alice, vm_id)


def test_an_administrator_deploys_for_another_account(world: World, cloud: Cloud, alice: Caller) -> None:
    vm_id = deployed(world, root(), cloud, account="alice", domain_id=alice.domain_id)

    assert row_of(world, vm_id)["account_id"] == alice.account_id


def test_an_administrator_chooses_the_host(world: World, cloud: Cloud, alice: Caller) -> None:
    for host_id in cloud.hosts:
        vm_id = deployed(world, root(), cloud, host_id=host_id)
        assert row_of(world, vm_id)["host_id"] == host_id


def test_events_tell_of_the_deploy_from_its_schedule_to_its_end(world: World, cloud: Cloud, alice: Caller) -> None:
    vm_id = deployed(world, alice, cloud)

    with world.db.read() as tx:
        rows = tx.all(select(event).where(event.c.resource_kind == "VirtualMachine").order_by(event.c.id))
    created = [row for row in rows if row["type"] == "VM.CREATE"]
    assert [row["state"] for row in created] == ["Scheduled", "Started", "Completed"]
    assert {row["start_id"] for row in created[1:]} == {created[0]["id"]}
    assert [row["type"] for row in rows].count("VM.START") == 1
    assert {row["resource_id"] for row in rows} == {vm_id}
    assert {row["account_id"] for row in rows} == {alice.account_id}


@pytest.mark.parametrize(
    "name", ["-web", "web-", "we b", "web.example", "wéb", "1234", "a" * 64, "web_1", "web;reboot", "../web"]
)
def test_a_name_that_is_no_host_name_is_refused(world: World, cloud: Cloud, alice: Caller, name: str) -> None:
    assert "RFC 1123" in refused(world, alice, cloud, ParameterError, name=name).text


@pytest.mark.parametrize("name", ["w", "web-1", "1web", "WEB", "a" * 63])
def test_a_host_name_is_accepted(world: World, cloud: Cloud, alice: Caller, name: str) -> None:
    _, vm_id = submitted(world, alice, cloud, name=name)

    assert row_of(world, vm_id)["name"] == name


def test_a_used_name_is_refused_whatever_its_case(world: World, cloud: Cloud, alice: Caller) -> None:
    deployed(world, alice, cloud, name="web")

    assert "exists in the network domain" in refused(world, alice, cloud, ParameterError, name="WEB").text


def test_two_accounts_may_use_the_same_name_and_address(world: World, cloud: Cloud, alice: Caller) -> None:
    bob = world.account("bob")

    first = deployed(world, alice, cloud, name="web", ip_address="10.1.1.7")
    second = deployed(world, bob, cloud, name="web", ip_address="10.1.1.7")

    assert [view(world, root(), each)["ip_address"] for each in (first, second)] == ["10.1.1.7"] * 2
    world.assert_nothing_left()


def test_the_name_and_the_address_of_a_destroyed_guest_are_free(world: World, cloud: Cloud, alice: Caller) -> None:
    first = deployed(world, alice, cloud, name="web", ip_address="10.1.1.7")
    with world.db.write() as tx:
        job_uuid, _ = vm_service.destroy(tx, alice, first, expunge=False)
    world.result(job_uuid)

    second = deployed(world, alice, cloud, name="web", ip_address="10.1.1.7")

    assert view(world, alice, second)["ip_address"] == "10.1.1.7"
    world.assert_nothing_left()


@pytest.mark.parametrize("ip", ["10.1.1.7", "10.2.0.1", "10.1.1.0", "10.1.1.255", "10.1.1.1", "not-an-address"])
def test_a_used_or_unusable_address_is_refused(world: World, cloud: Cloud, alice: Caller, ip: str) -> None:
    deployed(world, alice, cloud, ip_address="10.1.1.7")

    assert refused(world, alice, cloud, ParameterError, ip_address=ip).code == 431


def test_addresses_may_be_given_per_network(world: World, cloud: Cloud, alice: Caller) -> None:
    first = view(world, alice, deployed(world, alice, cloud))
    entry = {"networkid": first["nic"][0]["network_id"], "ip": "10.1.1.99"}

    second = deployed(world, alice, cloud, addresses=(entry,))

    assert view(world, alice, second)["ip_address"] == "10.1.1.99"
    refused(world, alice, cloud, ParameterError, addresses=(entry,), ip_address="10.1.1.98")
    refused(world, alice, cloud, ParameterError, addresses=({"ip": "10.1.1.98"},))
    refused(world, world.account("bob"), cloud, PermissionDenied, addresses=(entry,))


def test_user_data_is_kept_as_given(world: World, cloud: Cloud, alice: Caller) -> None:
    text = b64encode(bytes(MOST_USER_DATA_BYTES)).decode()

    _, vm_id = submitted(world, alice, cloud, user_data=text)

    with world.db.read() as tx:
        data = vms.guest_data_of(tx, vm_id)
    assert data is not None
    assert data["user_data"] == text


@pytest.mark.parametrize(
    "text", ["not base64!", "YQ", b64encode(bytes(MOST_USER_DATA_BYTES + 1)).decode()], ids=["text", "cut", "long"]
)
def test_bad_user_data_is_refused(world: World, cloud: Cloud, alice: Caller, text: str) -> None:
    assert refused(world, alice, cloud, ParameterError, user_data=text).code == 431


def without_copy(world: World, cloud: Cloud) -> dict[str, Any]:
    return {"template_id": world.template(cloud.zone, ready=False)}


def still_downloading(world: World, cloud: Cloud) -> dict[str, Any]:
    template_id = world.template(cloud.zone, ready=False)
    copy = {"template_id": template_id, "zone_id": cloud.zone, "state": "Downloading", "status": "12% Downloaded"}
    with world.db.write() as tx:
        tx.execute(insert(template_copy).values(**copy, percent=12, name="half", created_at=tx.now))
    return {"template_id": template_id}


def for_system_vms(world: World, cloud: Cloud) -> dict[str, Any]:
    with world.db.write() as tx:
        tx.execute(update(service_offering).where(service_offering.c.id == cloud.offering).values(is_system=1))
    return {}


def without_size(world: World, cloud: Cloud) -> dict[str, Any]:
    return {"disk_offering_id": world.disk_offering(size=0, customized=1)}


def of_no_size(world: World, cloud: Cloud) -> dict[str, Any]:
    return {"disk_offering_id": world.disk_offering(size=0, customized=1), "size_gib": 0}


def too_large(world: World, cloud: Cloud) -> dict[str, Any]:
    return {"disk_offering_id": world.disk_offering(size=0, customized=1), "size_gib": 1_000_000}


def of_another_hypervisor(world: World, cloud: Cloud) -> dict[str, Any]:
    return {"hypervisor": "KVM"}


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (without_copy, "is not ready in this zone"),
        (still_downloading, "is not ready in this zone"),
        (for_system_vms, "is for system VMs"),
        (without_size, "needs a size"),
        (of_no_size, "size must be from 1"),
        (too_large, "size must be from 1"),
        (of_another_hypervisor, "is for Simulator, not for KVM"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    world: World, cloud: Cloud, alice: Caller, wishes: Callable[[World, Cloud], dict[str, Any]], said: str
) -> None:
    given = wishes(world, cloud)

    assert said in refused(world, alice, cloud, ParameterError, **given).text


def test_a_disabled_zone_takes_guests_of_root_administrators_only(world: World, cloud: Cloud, alice: Caller) -> None:
    with world.db.write() as tx:
        tx.execute(update(zone).values(allocation_state="Disabled"))

    assert refused(world, alice, cloud, PermissionDenied).code == 531
    assert row_of(world, deployed(world, root(), cloud))["state"] == VmState.RUNNING


def test_users_may_not_choose_a_host(world: World, cloud: Cloud, alice: Caller) -> None:
    refused(world, alice, cloud, PermissionDenied, host_id=cloud.hosts[0])


def test_a_host_of_another_zone_is_refused(world: World, cloud: Cloud) -> None:
    refused(world, root(), cloud, ParameterError, host_id=cloud.storage)


def test_what_is_given_to_a_domain_is_not_offered_to_others(world: World, cloud: Cloud, alice: Caller) -> None:
    domain_id = world.domain("reserved")
    dedicated = world.offering(domain_id=domain_id)

    refused(world, root(), cloud, PermissionDenied, account="alice", domain_id=1, service_offering_id=dedicated)


@pytest.mark.parametrize("maximum", [0, 1])
def test_limits_hold_and_are_given_back(world: World, cloud: Cloud, maximum: int) -> None:
    limited = world.account("limited", maximum=maximum)
    for _ in range(maximum):
        deployed(world, limited, cloud)

    error = refused(world, limited, cloud, LimitExceeded)

    assert error.code == 535
    assert "virtual machines" in error.text


def test_a_data_disk_counts_as_a_volume_of_its_own(world: World, cloud: Cloud) -> None:
    limited = world.account("limited", maximum=1)

    error = refused(world, limited, cloud, LimitExceeded, disk_offering_id=world.disk_offering())

    assert "volumes" in error.text
    assert Resource.VOLUME == 2


def test_beyond_capacity_the_job_fails_with_each_host_and_its_reason(world: World, cloud: Cloud, alice: Caller) -> None:
    deployed(world, alice, cloud)
    before = world.left()
    huge = world.offering(ram_mib=1 << 20)
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == cloud.hosts[1]).values(allocation_state="Disabled"))
        names = list(tx.execute(select(host.c.name).where(host.c.id.in_(cloud.hosts)).order_by(host.c.id)).scalars())
    job_uuid, vm_id = submitted(world, alice, cloud, name="huge", service_offering_id=huge)

    code, text = world.failure(job_uuid)

    assert code == InsufficientCapacity.code == 533
    assert f"{names[0]}: not enough memory" in text
    assert f"{names[1]}: it is disabled for new guests" in text
    assert row_of(world, vm_id)["live"] is None
    world.assert_nothing_left(before)


def test_a_failed_deploy_frees_its_name(world: World, cloud: Cloud, alice: Caller) -> None:
    deployed(world, alice, cloud)
    job_uuid, _ = submitted(world, alice, cloud, name="web", service_offering_id=world.offering(cpus=64))
    assert world.failure(job_uuid)[0] == 533

    assert row_of(world, deployed(world, alice, cloud, name="web"))["state"] == VmState.RUNNING


def test_a_host_that_refuses_is_avoided_and_told_of(world: World, cloud: Cloud, alice: Caller) -> None:
    deployed(world, alice, cloud)
    before = world.left()
    refuse(world, StartVm, Reason.FAILED, "no bridge today")
    job_uuid, _ = submitted(world, alice, cloud)

    code, text = world.failure(job_uuid)

    assert code == 533
    assert text.count("no bridge today") == len(cloud.hosts)
    world.assert_nothing_left(before)


def test_unknown_rows_leave_nothing_behind(world: World, cloud: Cloud, alice: Caller) -> None:
    with pytest.raises(LookupError):
        submitted(world, alice, cloud, service_offering_id=9999)

    with world.db.read() as tx:
        assert tx.all(select(vm.c.id)) == []
