"""Zones through the API."""

import pytest
from places import events, pod, refused, zone
from sqlalchemy import func, insert, select, update
from vm_setup import deployed

from pileus.server.db.tables.network import network
from pileus.server.db.tables.offering import network_offering
from pileus.server.db.tables.place import zone as zones
from pileus.server.db.tables.place import zone_vnet
from pileus.server.db.transaction import Database
from pileus.server.domain.account import ADMIN_ACCOUNT, ROOT_DOMAIN, AccountType
from pileus.testing import World
from pileus.testing.client import Client, counted_statements

ADMINS_ONLY = {"dns1", "internaldns1", "vlan", "guestcidraddress", "zonetoken"}


@pytest.fixture
def client(db: Database) -> Client:
    return Client(db)


def vlans(database: Database) -> int:
    with database.read() as tx:
        return int(tx.scalar(select(func.count()).select_from(zone_vnet)))


def hold_vlan(database: Database, vnet: int) -> None:
    """Have a guest network hold a VLAN of the only zone."""
    with database.write() as tx:
        zone_id = tx.scalar(select(zones.c.id))
        network_id = tx.insert(
            insert(network).values(
                zone_id=zone_id,
                name="n",
                display_text="n",
                account_id=ADMIN_ACCOUNT,
                domain_id=ROOT_DOMAIN,
                offering_id=tx.scalar(select(network_offering.c.id).limit(1)),
                traffic_type="Guest",
                guest_ip_type="Virtual",
                isolation="vxlan",
                state="Implemented",
                created_at=tx.now,
            )
        )
        tx.execute(update(zone_vnet).where(zone_vnet.c.vnet == vnet).values(network_id=network_id))


def test_a_zone_tells_what_it_was_made_with(client: Client, db: Database) -> None:
    made = zone(client, dns2="192.0.2.3", domain="Guests.Example.org", guestcidraddress="10.9.0.0/16")
    shown = client.one("listZones", id=made["id"])
    assert shown == made
    expected = {
        "name": "z1",
        "networktype": "Advanced",
        "dns1": "192.0.2.1",
        "dns2": "192.0.2.3",
        "internaldns1": "192.0.2.2",
        "guestcidraddress": "10.9.0.0/16",
        "vlan": "100-119",
        "domain": "guests.example.org",
        "allocationstate": "Enabled",
        "securitygroupsenabled": False,
        "dhcpprovider": "VirtualRouter",
    }
    assert {name: made[name] for name in expected} == expected
    assert vlans(db) == 20
    assert events(db) == [("ZONE.CREATE", "Zone z1 was created")]


def test_an_advanced_zone_has_a_guest_cidr_unless_told_and_a_basic_one_has_none(client: Client) -> None:
    assert zone(client)["guestcidraddress"] == "10.1.1.0/24"
    assert "guestcidraddress" not in zone(client, "basic", networktype="basic", vlan=None)


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"name": " z"}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "n" * 256}, "name"),
        ({"networktype": "Fancy"}, "networktype"),
        ({"dns1": "dns.example"}, "dns1"),
        ({"dns2": "192.0.2.256"}, "dns2"),
        ({"internaldns1": "::1"}, "internaldns1"),
        ({"internaldns2": "1.2.3"}, "internaldns2"),
        ({"guestcidraddress": "10.1.1.1/24"}, "guestcidraddress"),
        ({"guestcidraddress": "10.1.1.0"}, "guestcidraddress"),
        ({"guestcidraddress": "10.1.1.0/31"}, "guestcidraddress"),
        ({"guestcidraddress": "0.0.0.0/0"}, "guestcidraddress"),
        ({"vlan": "0-10"}, "vlan"),
        ({"vlan": "20-10"}, "vlan"),
        ({"vlan": "10-20-30"}, "vlan"),
        ({"vlan": "²-5"}, "vlan"),
        ({"vlan": "1-16777216"}, "vlan"),
        ({"vlan": "1-65537"}, "vlan"),
        ({"vlan": "1-4095", "isolation": "vlan"}, "vlan"),
        ({"isolation": "gre"}, "isolation"),
        ({"networktype": "Basic"}, "vlan"),
        ({"networktype": "Basic", "vlan": None, "securitygroupenabled": True}, "security groups"),
        ({"networktype": "Basic", "vlan": None, "guestcidraddress": "10.1.1.0/24"}, "guest CIDR"),
        ({"domain": "-x.org"}, "domain"),
        ({"domain": "a..b"}, "domain"),
        ({"domainid": "nowhere"}, "domainid"),
        ({"allocationstate": "Maybe"}, "allocationstate"),
    ],
)
def test_what_makes_no_zone_is_refused_and_leaves_nothing(
    client: Client, db: Database, wrong: dict[str, str | None], parameter: str
) -> None:
    with refused(431, parameter):
        zone(client, **wrong)
    assert client.call("listZones") == {}
    assert vlans(db) == 0
    assert events(db) == []


def test_a_missing_parameter_is_named(client: Client) -> None:
    with refused(431, "missing parameter", "dns1", "internaldns1"):
        client.call("createZone", name="z", networktype="Advanced")


def test_a_used_name_is_refused_and_is_free_again_after_the_zone_is_gone(client: Client) -> None:
    first = zone(client)
    with refused(431, "z1"):
        zone(client)
    other = zone(client, "z2")
    with refused(431, "z1"):
        client.call("updateZone", id=other["id"], name="z1")
    assert client.one("updateZone", id=first["id"], name="z1")["name"] == "z1"
    client.call("deleteZone", id=first["id"])
    assert zone(client)["id"] != first["id"]


def test_an_update_changes_what_is_given_and_nothing_else(client: Client, db: Database) -> None:
    made = zone(client, dns2="192.0.2.3")
    changed = client.one(
        "updateZone",
        id=made["id"],
        name="new",
        dns2="",
        domain="example.org",
        vlan="100-109",
        allocationstate="disabled",
    )
    gone = {"dns2"}
    expected = {**made, "name": "new", "domain": "example.org", "vlan": "100-109", "allocationstate": "Disabled"}
    assert changed == {name: value for name, value in expected.items() if name not in gone}
    assert vlans(db) == 10
    assert events(db)[-1] == ("ZONE.EDIT", "Zone new was changed")


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"name": ""}, "name"),
        ({"dns1": ""}, "dns1"),
        ({"internaldns1": "x"}, "internaldns1"),
        ({"guestcidraddress": "x"}, "guestcidraddress"),
        ({"vlan": "x"}, "vlan"),
        ({"dhcpprovider": "ExternalDhcpServer"}, "DHCP provider"),
        ({"ispublic": False}, "public zone"),
        ({"allocationstate": "x"}, "allocationstate"),
    ],
)
def test_what_a_zone_cannot_become_is_refused_and_changes_nothing(
    client: Client, wrong: dict[str, str], parameter: str
) -> None:
    made = zone(client)
    with refused(431, parameter):
        client.call("updateZone", id=made["id"], **wrong)
    assert client.one("listZones") == made


def test_vlans_that_networks_hold_stay_in_the_range(client: Client, db: Database) -> None:
    made = zone(client)
    hold_vlan(db, 115)
    with refused(536, "115"):
        client.call("updateZone", id=made["id"], vlan="100-109")
    assert vlans(db) == 20
    assert client.one("updateZone", id=made["id"], vlan="110-129")["vlan"] == "110-129"
    assert vlans(db) == 20


def test_a_zone_with_something_in_it_is_not_deleted(client: Client) -> None:
    made = zone(client)
    place = pod(client, made["id"])
    with refused(536, "1 pods"):
        client.call("deleteZone", id=made["id"])
    client.call("deletePod", id=place["id"])
    assert client.call("deleteZone", id=made["id"])["success"] is True
    with refused(431, "id"):
        client.call("deleteZone", id=made["id"])
    assert client.call("listZones") == {}


def test_a_zone_whose_networks_live_is_not_deleted(client: Client, db: Database) -> None:
    made = zone(client)
    hold_vlan(db, 100)
    with refused(536, "1 networks"):
        client.call("deleteZone", id=made["id"])


def test_users_see_zones_of_everybody_and_of_the_domains_above_them(client: Client, world: World) -> None:
    above = world.domain("above")
    mine = world.domain("mine", parent_id=above)
    beside = world.domain("beside", parent_id=above)
    zone(client, "public")
    for name, domain_id in (("above", above), ("mine", mine), ("beside", beside)):
        zone(client, name, domainid=domain_id)
    user = Client(world.db, world.account("alice", domain_id=mine))
    assert user.names("listZones") == ["public", "above", "mine"]
    assert client.names("listZones") == ["public", "above", "mine", "beside"]
    # An administrator of a domain sees what is given to the domains below.
    admin = Client(world.db, world.account("boss", domain_id=above, type=AccountType.DOMAIN_ADMIN))
    assert admin.names("listZones") == ["public", "above", "mine", "beside"]
    hidden = client.one("listZones", keyword="beside")["id"]
    with refused(531, "zone"):
        user.call("listZones", id=hidden)


def test_addresses_and_vlans_are_for_administrators(client: Client, world: World) -> None:
    made = zone(client)
    user = Client(world.db, world.account("alice"))
    assert set(made) >= ADMINS_ONLY
    assert not ADMINS_ONLY & set(user.one("listZones"))


def test_users_see_no_zone_that_takes_no_guests_except_those_with_guests_of_theirs(
    client: Client, world: World
) -> None:
    cloud = world.cloud(hosts=1)
    alice, bob = world.account("alice"), world.account("bob")
    deployed(world, alice, cloud)
    name = client.one("updateZone", id=cloud.zone, allocationstate="Disabled")["name"]
    for user in (alice, bob):
        assert Client(world.db, user).call("listZones") == {}
    assert Client(world.db, alice).names("listZones", available=False) == [name]
    assert Client(world.db, bob).call("listZones", available=False) == {}
    assert client.names("listZones") == [name]
    assert client.call("listZones", available=True) == {}


@pytest.mark.parametrize("command", ["createZone", "updateZone", "deleteZone"])
def test_only_root_administrators_change_zones(client: Client, world: World, command: str) -> None:
    made = zone(client)
    for kind in (AccountType.USER, AccountType.DOMAIN_ADMIN, AccountType.RESOURCE_ADMIN):
        with refused(401):
            Client(world.db, world.account(type=kind)).call(command, id=made["id"], name="x")
    assert client.one("listZones") == made


@pytest.mark.parametrize("unknown", ["0", "999", "x", "00000000-0000-0000-0000-000000000000", "-1", "1 OR 1=1"])
def test_unknown_ids_are_refused(client: Client, unknown: str) -> None:
    zone(client)
    for command in ("updateZone", "deleteZone", "listZones"):
        with refused(431, "id"):
            client.call(command, id=unknown)


def test_keywords_find_names_literally(client: Client) -> None:
    zone(client, "east 100%")
    zone(client, "west")
    assert client.names("listZones", keyword="EAST") == ["east 100%"]
    assert client.names("listZones", keyword="100%") == ["east 100%"]
    assert client.call("listZones", keyword="%st") == {}
    assert client.call("listZones", keyword="_est") == {}


def test_pages_show_all_zones_once_and_count_all(client: Client) -> None:
    for number in range(5):
        zone(client, f"z{number}")
    pages = [client.call("listZones", page=page, pagesize=2) for page in (1, 2, 3)]
    assert [entry["name"] for body in pages for entry in body["zone"]] == [f"z{number}" for number in range(5)]
    assert {body["count"] for body in pages} == {5}
    assert client.call("listZones", page=4, pagesize=2) == {"count": 5}
    for wrong in ({"page": 1}, {"pagesize": 2}, {"page": 0, "pagesize": 2}, {"page": "x", "pagesize": 2}):
        with refused(431, "page"):
            client.call("listZones", **wrong)


def test_a_page_costs_the_same_number_of_statements_whatever_it_holds(client: Client, db: Database) -> None:
    zone(client, "z0", domainid=ROOT_DOMAIN)
    client.call("listZones")
    with counted_statements(db) as few:
        client.call("listZones")
    for number in range(1, 30):
        zone(client, f"z{number}", domainid=ROOT_DOMAIN)
    with counted_statements(db) as many:
        assert client.call("listZones")["count"] == 30
    assert len(many) == len(few)


def test_markup_in_a_name_comes_back_as_text(client: Client) -> None:
    name = "<script>alert('x')</script>&\"é\u202e"
    assert zone(client, name)["name"] == name
    assert client.names("listZones") == [name]
