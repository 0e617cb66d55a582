"""VLAN IP ranges through the API."""

import pytest
from sqlalchemy import func, select

from pileus.server.db.seed import DIRECT_NETWORK_OFFERING
from pileus.server.db.tables.network import public_ip, vlan_ip_range
from pileus.server.db.tables.place import pod, zone
from pileus.testing import World
from pileus.testing.client import Client, Refused, counted_statements
from pileus.testing.networks import running_network


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


def made(admin: Client, zone_uuid: str, **wishes: object) -> dict[str, object]:
    return admin.one(
        "createVlanIpRange",
        **{
            "zoneid": zone_uuid,
            "startip": "203.0.113.10",
            "endip": "203.0.113.13",
            "gateway": "203.0.113.1",
            "netmask": "255.255.255.0",
            **wishes,
        },
    )


def addresses(world: World) -> list[str]:
    with world.reading() as tx:
        return list(
            tx.execute(
                select(public_ip.c.address).where(public_ip.c.live == 1).order_by(public_ip.c.address_number)
            ).scalars()
        )


def test_a_range_makes_one_free_address_each(world: World, admin: Client) -> None:
    where = world.uuid(zone, world.zone())
    shown = made(admin, where, vlan="100")
    assert addresses(world) == [f"203.0.113.{n}" for n in range(10, 14)]
    assert shown == {
        "id": shown["id"],
        "forvirtualnetwork": True,
        "zoneid": where,
        "vlan": "100",
        "gateway": "203.0.113.1",
        "netmask": "255.255.255.0",
        "description": "100",
        "startip": "203.0.113.10",
        "endip": "203.0.113.13",
    }
    assert made(admin, where, startip="203.0.113.20", endip=None, vlan="100")["endip"] == "203.0.113.20"


@pytest.mark.parametrize(
    ("wishes", "named"),
    [
        ({"gateway": "203.0.113.11"}, "gateway"),
        ({"gateway": "203.0.113.0"}, "gateway"),
        ({"gateway": None}, "gateway"),
        ({"netmask": "255.255.255.1"}, "netmask"),
        ({"startip": "10.20.30.40"}, "startip"),
        ({"startip": "203.0.113.200"}, "endip"),
        ({"endip": "203.0.113.255"}, "broadcast"),
        ({"startip": "nonsense"}, "startip"),
        ({"startip": "203.0.113.32", "endip": "203.0.113.40"}, "overlaps"),
        ({"startip": "203.0.113.50", "endip": "203.0.113.60", "vlan": "7"}, "overlaps"),
        ({"startip": "10.1.1.10", "endip": "10.1.1.12", "gateway": "10.1.1.1"}, "guest network"),
        ({"vlan": "4095"}, "vlan"),
        ({"zoneid": None}, "zoneid"),
        ({"forvirtualnetwork": False}, "networkid"),
        ({"account": "nobody"}, "nobody"),
        ({"domainid": 1}, "account"),
        ({"vlan": "0"}, "vlan"),
        ({"vlan": "7-9"}, "vlan"),
    ],
)
def test_a_range_that_cannot_be_is_refused_and_leaves_nothing(
    world: World, admin: Client, wishes: dict[str, object], named: str
) -> None:
    zone_id = world.zone()
    world.public_range(zone_id, "203.0.113.30", "203.0.113.39")
    before = addresses(world)
    with pytest.raises(Refused, match=f"(?i){named}") as refused:
        made(admin, world.uuid(zone, zone_id), **wishes)
    assert refused.value.code == 431
    assert addresses(world) == before


def test_a_range_is_deleted_only_while_none_of_its_addresses_is_in_use(world: World, admin: Client) -> None:
    cloud, user = world.cloud(), world.account()
    running_network(world, user, cloud.zone)
    used = world.uuid(vlan_ip_range, 1)
    with pytest.raises(Refused) as refused:
        admin.call("deleteVlanIpRange", id=used)
    assert refused.value.code == 536
    unused = made(admin, world.uuid(zone, cloud.zone))["id"]
    assert admin.call("deleteVlanIpRange", id=unused) == {"success": True}
    assert len(addresses(world)) == 10
    assert made(admin, world.uuid(zone, cloud.zone))["startip"] == "203.0.113.10"


def test_a_dedicated_range_serves_its_account_first_and_nobody_else(world: World, admin: Client) -> None:
    cloud, user, other = world.cloud(), world.account("dear"), world.account()
    shown = made(admin, world.uuid(zone, cloud.zone), account="dear", domainid=1)
    assert shown["account"] == "dear"
    running_network(world, user, cloud.zone)
    running_network(world, other, cloud.zone)
    held = admin.call("listPublicIpAddresses", listall=True)["publicipaddress"]
    assert [(ip["account"], ip["ipaddress"]) for ip in held] == [
        (other.account_name, "198.51.100.10"),
        ("dear", "203.0.113.10"),
    ]
    assert [r["account"] for r in admin.call("listVlanIpRanges", account="dear", domainid=1)["vlaniprange"]] == ["dear"]


def test_more_addresses_can_be_given_to_a_direct_network(world: World, admin: Client) -> None:
    cloud = world.cloud()
    offering = next(
        o["id"] for o in admin.call("listNetworkOfferings")["networkoffering"] if o["name"] == DIRECT_NETWORK_OFFERING
    )
    lan = admin.one(
        "createNetwork",
        name="lan",
        displaytext="lan",
        networkofferingid=offering,
        zoneid=world.uuid(zone, cloud.zone),
        gateway="192.0.2.1",
        netmask="255.255.255.0",
        startip="192.0.2.10",
        vlan="77",
    )["id"]
    more = admin.one("createVlanIpRange", networkid=lan, startip="192.0.2.20", endip="192.0.2.29")
    assert (more["networkid"], more["vlan"], more["forvirtualnetwork"]) == (lan, "77", False)
    assert admin.call("listVlanIpRanges", networkid=lan)["count"] == 2
    assert admin.call("listVlanIpRanges", forvirtualnetwork=True)["count"] == 1
    fine = {"startip": "192.0.2.40"}
    for wrong, named in (
        ({"startip": "192.0.2.1"}, "gateway"),
        ({"startip": "192.0.2.25"}, "overlaps"),
        ({"startip": "198.51.100.1"}, "startip"),
        ({**fine, "gateway": "192.0.2.2"}, "gateway"),
        ({**fine, "netmask": "255.255.0.0"}, "netmask"),
        ({**fine, "vlan": "78"}, "vlan"),
        ({**fine, "zoneid": world.uuid(zone, world.zone())}, "zoneid"),
        ({**fine, "podid": world.uuid(pod, cloud.pod)}, "podid"),
        ({**fine, "account": "admin", "domainid": 1}, "account"),
        ({**fine, "domainid": 1}, "account"),
    ):
        with pytest.raises(Refused, match=named) as refused:
            admin.one("createVlanIpRange", networkid=lan, **wrong)
        assert refused.value.code == 431
    assert admin.call("listVlanIpRanges", networkid=lan)["count"] == 2
    same = {"gateway": "192.0.2.1", "netmask": "255.255.255.0", "vlan": "77", "zoneid": world.uuid(zone, cloud.zone)}
    assert admin.one("createVlanIpRange", networkid=lan, **fine, **same)["endip"] == "192.0.2.40"


def test_a_page_of_ranges_costs_the_same_however_long_it_is(world: World, admin: Client) -> None:
    zone_id = world.zone()
    world.public_range(zone_id)
    admin.call("listVlanIpRanges")
    with counted_statements(world.db) as few:
        admin.call("listVlanIpRanges")
    for n in range(5):
        world.public_range(zone_id, f"203.0.{n}.10", f"203.0.{n}.11")
    with counted_statements(world.db) as many:
        assert admin.call("listVlanIpRanges", page=1, pagesize=100)["count"] == 6
    assert len(many) == len(few)


def test_events_tell_of_ranges(world: World, admin: Client) -> None:
    made(admin, world.uuid(zone, world.zone()))
    with world.reading() as tx:
        assert tx.scalar(select(func.count()).select_from(public_ip)) == 4
    assert "VLAN.IP.RANGE.CREATE" in [e["type"] for e in admin.call("listEvents", listall=True)["event"]]
