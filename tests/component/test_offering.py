"""Service, disk and network offerings, and operating systems through the API."""

import pytest
from places import events, refused
from vm_setup import deployed

from pileus.server.db.transaction import Database
from pileus.server.domain.account import AccountType
from pileus.testing import World
from pileus.testing.client import Client, counted_statements

SERVICE = {"name": "Big", "displaytext": "8 x 2 GHz", "cpunumber": "8", "cpuspeed": "2000", "memory": "16384"}
DISK = {"name": "Wide", "displaytext": "50 GB", "disksize": "50"}


@pytest.fixture
def client(db: Database) -> Client:
    return Client(db)


def test_a_service_offering_tells_what_it_was_made_with(client: Client, db: Database) -> None:
    made = client.one(
        "createServiceOffering", **SERVICE, networkrate=200, offerha=True, limitcpuuse=True, storagetype="Local",
        tags="ssd, fast,", hosttags="gpu",
    )  # fmt: skip
    expected = {
        "name": "Big",
        "displaytext": "8 x 2 GHz",
        "cpunumber": 8,
        "cpuspeed": 2000,
        "memory": 16384,
        "networkrate": 200,
        "offerha": True,
        "limitcpuuse": True,
        "storagetype": "local",
        "tags": "ssd,fast",
        "hosttags": "gpu",
        "issystem": False,
        "defaultuse": False,
    }
    assert {name: made[name] for name in expected} == expected
    assert client.one("listServiceOfferings", id=made["id"]) == made
    assert events(db)[-1] == ("SERVICE.OFFERING.CREATE", "Service offering Big was created")


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"name": "\t"}, "name"),
        ({"cpunumber": "0"}, "cpunumber"),
        ({"cpunumber": "1025"}, "cpunumber"),
        ({"cpunumber": "two"}, "cpunumber"),
        ({"cpunumber": "99999999999999999999"}, "cpunumber"),
        ({"cpuspeed": "-1"}, "cpuspeed"),
        ({"memory": "31"}, "memory"),
        ({"memory": "16777217"}, "memory"),
        ({"networkrate": "-1"}, "networkrate"),
        ({"networkrate": "1000001"}, "networkrate"),
        ({"storagetype": "tape"}, "storagetype"),
        ({"issystem": "true"}, "systemvmtype"),
        ({"issystem": "true", "systemvmtype": "x"}, "systemvmtype"),
        ({"domainid": "99"}, "domainid"),
    ],
)
def test_what_makes_no_service_offering_is_refused(client: Client, wrong: dict[str, str], parameter: str) -> None:
    with refused(431, parameter):
        client.call("createServiceOffering", **{**SERVICE, **wrong})
    assert "Big" not in client.names("listServiceOfferings")


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"name": " x"}, "name"),
        ({"disksize": None}, "disksize"),
        ({"disksize": "0"}, "disksize"),
        ({"disksize": "2001"}, "disksize"),
        ({"customized": "true"}, "disksize"),
    ],
)
def test_what_makes_no_disk_offering_is_refused(client: Client, wrong: dict[str, str | None], parameter: str) -> None:
    with refused(431, parameter):
        client.call("createDiskOffering", **{**DISK, **wrong})
    assert "Wide" not in client.names("listDiskOfferings")


def test_a_disk_offering_has_a_size_or_leaves_it_to_the_user(client: Client, db: Database) -> None:
    made = client.one("createDiskOffering", **DISK, tags="a,b")
    assert (made["disksize"], made["iscustomized"], made["tags"]) == (50, False, "a,b")
    assert events(db)[-1] == ("DISK.OFFERING.CREATE", "Disk offering Wide was created")
    free = client.one("createDiskOffering", name="Free", displaytext="any", customized=True)
    assert (free["disksize"], free["iscustomized"]) == (0, True)
    client.call("updateConfiguration", name="storage.max.volume.size", value="40")
    with refused(431, "40"):
        client.call("createDiskOffering", **DISK)


@pytest.mark.parametrize(("noun", "given"), [("Service", SERVICE), ("Disk", DISK)])
def test_an_offering_is_renamed_and_deleted(client: Client, db: Database, noun: str, given: dict[str, str]) -> None:
    made = client.one(f"create{noun}Offering", **given)
    changed = client.one(f"update{noun}Offering", id=made["id"], name="New", displaytext="")
    assert changed == {**made, "name": "New", "displaytext": ""}
    assert events(db)[-1] == (f"{noun.upper()}.OFFERING.EDIT", f"{noun} offering New was changed")
    with refused(431, "name"):
        client.call(f"update{noun}Offering", id=made["id"], name="")
    client.call(f"delete{noun}Offering", id=made["id"])
    assert events(db)[-1] == (f"{noun.upper()}.OFFERING.DELETE", f"{noun} offering New was deleted")
    assert "New" not in client.names(f"list{noun}Offerings")
    for command in (f"update{noun}Offering", f"delete{noun}Offering"):
        with refused(431, "id"):
            client.call(command, id=made["id"])


def test_a_guest_keeps_an_offering_that_was_deleted(client: Client, world: World) -> None:
    cloud = world.cloud(hosts=1)
    alice = world.account("alice")
    guest = deployed(world, alice, cloud)
    user = Client(world.db, alice)
    name = user.one("listServiceOfferings", virtualmachineid=guest)["name"]
    client.call("deleteServiceOffering", id=cloud.offering)
    assert name not in user.names("listServiceOfferings")
    assert user.one("listVirtualMachines", id=guest)["serviceofferingname"] == name
    other = Client(world.db, world.account("bob"))
    with refused(531, "virtual machine"):
        other.call("listServiceOfferings", virtualmachineid=guest)


def test_offerings_of_the_system_are_for_root_administrators(client: Client, world: World) -> None:
    system = client.names("listServiceOfferings", issystem=True)
    assert system
    assert client.names("listServiceOfferings", issystem=True, systemvmtype="DomainRouter") == system
    user = Client(world.db, world.account("alice"))
    assert not set(system) & set(user.names("listServiceOfferings", issystem=True))
    router = client.call("listServiceOfferings", issystem=True)["serviceoffering"][0]["id"]
    with refused(536, "built-in"):
        client.call("deleteServiceOffering", id=router)
    made = client.one("createServiceOffering", **SERVICE, issystem=True, systemvmtype="domainrouter")
    assert made["systemvmtype"] == "domainrouter"
    client.call("deleteServiceOffering", id=made["id"])


@pytest.mark.parametrize(("noun", "given"), [("Service", SERVICE), ("Disk", DISK)])
def test_offerings_of_a_domain_are_seen_there_and_below(
    client: Client, world: World, noun: str, given: dict[str, str]
) -> None:
    above = world.domain("above")
    mine = world.domain("mine", parent_id=above)
    beside = world.domain("beside", parent_id=above)
    for domain_id, name in ((above, "for above"), (mine, "for mine"), (beside, "for beside")):
        client.call(f"create{noun}Offering", **{**given, "name": name}, domainid=domain_id)
    user = Client(world.db, world.account("alice", domain_id=mine))
    assert [name for name in user.names(f"list{noun}Offerings") if name.startswith("for")] == ["for above", "for mine"]
    boss = Client(world.db, world.account("boss", domain_id=above, type=AccountType.DOMAIN_ADMIN))
    assert len([name for name in boss.names(f"list{noun}Offerings") if name.startswith("for")]) == 3
    hidden = client.one(f"list{noun}Offerings", name="for beside")["id"]
    with refused(531, "offering"):
        user.call(f"list{noun}Offerings", id=hidden)
    with refused(401):
        user.call(f"delete{noun}Offering", id=hidden)


def test_operating_systems_and_their_categories(client: Client, world: World) -> None:
    user = Client(world.db, world.account("alice"))
    categories = user.call("listOsCategories")["oscategory"]
    by_name = {category["name"]: category["id"] for category in categories}
    found = user.call("listOsTypes", oscategoryid=by_name["CentOS"])["ostype"]
    assert found
    assert {entry["oscategoryname"] for entry in found} == {"CentOS"}
    assert user.one("listOsTypes", id=found[0]["id"]) == found[0]
    assert user.one("listOsCategories", id=by_name["CentOS"])["name"] == "CentOS"
    for command in ("listOsTypes", "listOsCategories"):
        with refused(431, "id"):
            user.call(command, id="0")


@pytest.mark.parametrize(("noun", "given"), [("Service", SERVICE), ("Disk", DISK)])
def test_a_page_costs_the_same_number_of_statements_whatever_it_holds(
    client: Client, db: Database, noun: str, given: dict[str, str]
) -> None:
    client.call(f"create{noun}Offering", **given, domainid=1)
    client.call(f"list{noun}Offerings")
    with counted_statements(db) as few:
        before = client.call(f"list{noun}Offerings")["count"]
    for number in range(20):
        client.call(f"create{noun}Offering", **{**given, "name": f"more{number}"}, domainid=1)
    with counted_statements(db) as many:
        assert client.call(f"list{noun}Offerings")["count"] == before + 20
    assert len(many) == len(few)
