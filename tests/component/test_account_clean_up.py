"""Deleted accounts and domains with everything they own: shut at once, visible until the end, tried again."""

from dataclasses import dataclass

import pytest
from places import refused
from sqlalchemy import func, select
from vm_setup import deployed, order, refuse, row_of, steady_cloud, submitted

from pileus.server.db.queries import account as accounts
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.event import event
from pileus.server.db.tables.job import job as job_table
from pileus.server.db.tables.network import network, vlan_ip_range
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.vm import vm
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ResourceInUse
from pileus.server.services.vm_deploy import deploy
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client
from pileus.wire.operations import Reason, StopVm

DAY = 86400.0


@dataclass
class Bob:
    """An account of a domain of its own, and its calls."""

    caller: Caller
    client: Client
    account: str
    domain: str


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


@pytest.fixture
def bob(world: World) -> Bob:
    home = world.domain("d")
    caller = world.account("bob", domain_id=home)
    client = Client(world.db, caller)
    return Bob(caller, client, world.uuid(account, caller.account_id), world.uuid(domain, home))


def listed(admin: Client, bob: Bob) -> list[dict[str, object]]:
    return list(admin.call("listAccounts", id=bob.account).get("account", [])) if known(admin, bob) else []


def known(admin: Client, bob: Bob) -> bool:
    return "bob" in admin.names("listAccounts", listall=True)


def test_an_account_goes_with_its_guests_disks_network_and_addresses(
    world: World, cloud: Cloud, admin: Client, bob: Bob
) -> None:
    before = world.left()
    deployed(world, bob.caller, cloud, name="web", disk_offering_id=world.disk_offering())
    world.template(cloud.zone, owner=bob.caller)
    job = admin.call("deleteAccount", id=bob.account)["jobid"]
    world.settle()
    assert admin.call("queryAsyncJobResult", jobid=job)["jobstatus"] == 1
    assert not known(admin, bob)
    world.assert_nothing_left()
    after = world.left()
    assert (after.guests, after.volumes, after.addresses, after.vnets) == (
        before.guests,
        before.volumes,
        before.addresses,
        before.vnets,
    )
    with world.reading() as tx:
        told = {row["type"] for row in tx.all(select(event.c.type).where(event.c.account_id == bob.caller.account_id))}
    assert {"VM.DESTROY", "VM.EXPUNGE", "VOLUME.DELETE", "NETWORK.DELETE", "TEMPLATE.DELETE", "ACCOUNT.DELETE"} <= told


def test_nobody_of_a_deleted_account_gets_in_from_the_call_on(
    world: World, cloud: Cloud, admin: Client, bob: Bob
) -> None:
    deployed(world, bob.caller, cloud, name="web")
    admin.call("deleteAccount", id=bob.account)
    with refused(401):
        bob.client.call("listZones")
    (shown,) = listed(admin, bob)
    assert (shown["state"], shown["iscleanuprequired"]) == ("removed", True)
    assert admin.names("listAccounts", listall=True, iscleanuprequired=True) == ["bob"]
    for command in ("enableAccount", "lockAccount"):
        with refused(431):
            admin.call(command, account="bob", domainid=bob.domain)
    with refused(531, "removed"):
        admin.call(
            "createUser", account="bob", domainid=bob.domain, username="x", password="p" * 9, firstname="x",
            lastname="x", email="x@example.org",
        )  # fmt: skip


def test_what_could_not_be_taken_away_is_tried_again_after_the_interval(
    world: World, cloud: Cloud, admin: Client, bob: Bob
) -> None:
    guest = deployed(world, bob.caller, cloud, name="web")
    refuse(world, StopVm, Reason.FAILED)
    job = admin.call("deleteAccount", id=bob.account)["jobid"]
    for _ in range(40):
        world.turn()
    world.instead = lambda waiting: None
    world.settle()
    assert admin.call("queryAsyncJobResult", jobid=job)["jobstatus"] == 2
    (shown,) = listed(admin, bob)
    assert (shown["state"], shown["iscleanuprequired"]) == ("removed", True)
    assert row_of(world, guest)["live"] == 1
    world.clock.advance(DAY / 2)
    world.reconcile("account-cleanup")
    world.settle()
    assert known(admin, bob)
    world.clock.advance(DAY)
    world.reconcile("account-cleanup")
    world.settle()
    assert not known(admin, bob)
    world.assert_nothing_left()


def test_a_second_call_tries_again_at_once(world: World, cloud: Cloud, admin: Client, bob: Bob) -> None:
    deployed(world, bob.caller, cloud, name="web")
    refuse(world, StopVm, Reason.FAILED)
    admin.call("deleteAccount", id=bob.account)
    for _ in range(40):
        world.turn()
    world.instead = lambda waiting: None
    world.settle()
    job = admin.call("deleteAccount", id=bob.account)["jobid"]
    world.settle()
    assert admin.call("queryAsyncJobResult", jobid=job)["jobstatus"] == 1
    assert not known(admin, bob)


def test_a_deploy_under_way_ends_before_its_guest_is_taken_away(
    world: World, cloud: Cloud, admin: Client, bob: Bob
) -> None:
    started, guest = submitted(world, bob.caller, cloud, name="web")
    world.turn()
    job = admin.call("deleteAccount", id=bob.account)["jobid"]
    world.settle()
    assert world.job(started)["phase"] == "succeeded"
    assert admin.call("queryAsyncJobResult", jobid=job)["jobstatus"] == 1
    assert row_of(world, guest)["live"] is None
    world.assert_nothing_left()


def test_a_guest_destroyed_before_is_expunged_without_its_delay(
    world: World, cloud: Cloud, admin: Client, bob: Bob
) -> None:
    guest = deployed(world, bob.caller, cloud, name="web")
    world.result(bob.client.call("destroyVirtualMachine", id=world.uuid(vm, guest))["jobid"])
    admin.call("deleteAccount", id=bob.account)
    world.settle()
    assert row_of(world, guest)["live"] is None
    assert not known(admin, bob)


def test_a_removed_account_can_claim_nothing(world: World, cloud: Cloud, admin: Client, bob: Bob) -> None:
    admin.call("deleteAccount", id=bob.account)
    world.settle()
    with pytest.raises(ResourceInUse), world.db.write() as tx:
        deploy(tx, bob.caller, order(cloud))


def test_ranges_dedicated_to_the_account_are_everybodys_again(
    world: World, cloud: Cloud, admin: Client, bob: Bob
) -> None:
    admin.call(
        "createVlanIpRange", zoneid=world.uuid(zone, cloud.zone), account="bob", domainid=bob.domain, vlan="55",
        gateway="203.0.113.1", netmask="255.255.255.0", startip="203.0.113.10", endip="203.0.113.11",
    )  # fmt: skip
    admin.call("deleteAccount", id=bob.account)
    world.settle()
    with world.reading() as tx:
        row = tx.one(select(vlan_ip_range).where(vlan_ip_range.c.vlan == "55"))
    assert row is not None
    assert (row["live"], row["account_id"]) == (1, None)


def test_a_domain_goes_with_its_accounts_subdomains_and_what_was_given_to_it(
    world: World, cloud: Cloud, admin: Client, bob: Bob
) -> None:
    deployed(world, bob.caller, cloud, name="web")
    below = world.domain("below", parent_id=bob.caller.domain_id)
    carol = world.account("carol", domain_id=below)
    deployed(world, carol, cloud, name="web")
    offering = world.offering(domain_id=bob.caller.domain_id)
    job = admin.call("deleteDomain", id=bob.domain, cleanup=True)["jobid"]
    states = {row["name"]: row["state"] for row in admin.call("listDomains")["domain"]}
    assert states == {"ROOT": "Active", "d": "Inactive", "below": "Inactive"}
    with refused(431, "deleted"):
        admin.call("createDomain", name="late", parentdomainid=world.uuid(domain, below))
    world.settle()
    assert admin.call("queryAsyncJobResult", jobid=job)["jobstatus"] == 1
    assert admin.names("listDomains") == ["ROOT"]
    world.assert_nothing_left()
    with world.reading() as tx:
        assert tx.scalar(select(service_offering.c.live).where(service_offering.c.id == offering)) is None
        assert accounts.belongings(tx, carol.account_id) == {}
        live = select(func.count()).select_from(network).where(network.c.live == 1, network.c.traffic_type == "Guest")
        assert tx.scalar(live) == 0


def test_a_domain_that_a_zone_was_given_to_stays(world: World, admin: Client, bob: Bob) -> None:
    world.zone(domain_id=bob.caller.domain_id)
    for cleanup in (False, True):
        with refused(536, "1 zones"):
            admin.call("deleteDomain", id=bob.domain, cleanup=cleanup)
    assert bob.client.call("listZones")["count"] == 1


def test_a_half_deleted_domain_is_brought_to_its_end(world: World, cloud: Cloud, admin: Client, bob: Bob) -> None:
    deployed(world, bob.caller, cloud, name="web")
    refuse(world, StopVm, Reason.FAILED)
    job = admin.call("deleteDomain", id=bob.domain, cleanup=True)["jobid"]
    for _ in range(40):
        world.turn()
    world.instead = lambda waiting: None
    world.settle()
    assert admin.call("queryAsyncJobResult", jobid=job)["jobstatus"] == 2
    assert admin.names("listDomains") == ["ROOT", "d"]
    world.clock.advance(DAY + 1)
    world.reconcile("account-cleanup")
    world.settle()
    assert admin.names("listDomains") == ["ROOT"]
    world.assert_nothing_left()


def test_guests_of_a_disabled_account_that_ran_on_are_stopped_later(
    world: World, cloud: Cloud, admin: Client, bob: Bob
) -> None:
    guest = deployed(world, bob.caller, cloud, name="web")
    late = world.job(admin.call("disableAccount", account="bob", domainid=bob.domain, lock=False)["jobid"])
    with world.db.write() as tx:
        # As if the job had failed before it asked for anything.
        tx.execute(job_table.delete().where(job_table.c.id == late["id"]))
    assert listed(admin, bob)[0]["iscleanuprequired"] is True
    world.clock.advance(DAY + 1)
    world.reconcile("account-cleanup")
    world.settle()
    assert row_of(world, guest)["state"] == "Stopped"
    assert listed(admin, bob)[0]["iscleanuprequired"] is False
