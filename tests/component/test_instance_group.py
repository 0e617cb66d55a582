"""Instance groups: made by command or by a deploy, renamed, listed, deleted without their guests."""

import pytest
from places import refused
from vm_setup import deployed, steady_cloud

from pileus.server.db.tables.vm import vm
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def alice(world: World) -> Caller:
    return world.account("alice", domain_id=world.domain("d"))


@pytest.fixture
def client(world: World, alice: Caller) -> Client:
    return Client(world.db, alice)


def test_a_deploy_uses_the_group_of_that_name_or_makes_it(
    world: World, cloud: Cloud, alice: Caller, client: Client
) -> None:
    made = client.one("createInstanceGroup", name="web")
    deployed(world, alice, cloud, name="one", group="web")
    deployed(world, alice, cloud, name="two", group="db")
    deployed(world, alice, cloud, name="three", group="db")
    assert client.names("listInstanceGroups") == ["web", "db"]
    assert client.names("listVirtualMachines", groupid=made["id"]) == ["one"]
    assert client.names("listVirtualMachines", group="db") == ["two", "three"]
    (shown,) = client.call("listVirtualMachines", name="one")["virtualmachine"]
    assert (shown["group"], shown["groupid"]) == ("web", made["id"])


def test_a_renamed_group_keeps_its_guests_and_a_deleted_one_lets_them_go(
    world: World, cloud: Cloud, alice: Caller, client: Client
) -> None:
    deployed(world, alice, cloud, name="one", group="web")
    group = client.one("listInstanceGroups")["id"]
    assert client.one("updateInstanceGroup", id=group, name="front")["name"] == "front"
    (shown,) = client.call("listVirtualMachines")["virtualmachine"]
    assert shown["group"] == "front"
    assert client.call("deleteInstanceGroup", id=group) == {"success": True}
    (shown,) = client.call("listVirtualMachines")["virtualmachine"]
    assert "group" not in shown
    assert "groupid" not in shown
    with refused(431, "instance group"):
        client.call("deleteInstanceGroup", id=group)


def test_a_guest_changes_its_group_and_leaves_it(world: World, cloud: Cloud, alice: Caller, client: Client) -> None:
    guest = world.uuid(vm, deployed(world, alice, cloud, name="one", group="web"))
    assert client.one("updateVirtualMachine", id=guest, group="db")["group"] == "db"
    assert client.names("listInstanceGroups") == ["web", "db"]
    assert "group" not in client.one("updateVirtualMachine", id=guest, group="")


def test_names_are_unique_in_an_account_only(world: World, client: Client) -> None:
    client.call("createInstanceGroup", name="web")
    other = client.one("createInstanceGroup", name="db")
    with refused(431, "web"):
        client.call("createInstanceGroup", name="web")
    with refused(431, "web"):
        client.call("updateInstanceGroup", id=other["id"], name="web")
    with refused(431, "name"):
        client.call("createInstanceGroup", name="")
    Client(world.db, world.account("bob")).call("createInstanceGroup", name="web")


def test_groups_are_their_accounts_own(world: World, alice: Caller, client: Client) -> None:
    group = client.one("createInstanceGroup", name="web")["id"]
    bob = Client(world.db, world.account("bob", domain_id=alice.domain_id))
    chief = Client(world.db, world.account("chief", domain_id=alice.domain_id, type=AccountType.DOMAIN_ADMIN))
    assert bob.call("listInstanceGroups", listall=True) == {}
    for command in ("listInstanceGroups", "updateInstanceGroup", "deleteInstanceGroup"):
        with refused(531):
            bob.call(command, id=group)
    with refused(531):
        bob.call("listVirtualMachines", groupid=group)
    assert chief.names("listInstanceGroups", listall=True) == ["web"]
    assert chief.one("updateInstanceGroup", id=group, name="front")["account"] == "alice"
