"""Direct networks and networks with a VLAN of their own: what they take, who may have it, what their guests get."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from network_setup import direct, key_of, offering
from sqlalchemy import select, update
from vm_setup import deployed, submitted

from pileus.server.config import change, keys
from pileus.server.db.queries import nic as nics
from pileus.server.db.seed import DIRECT_NETWORK_OFFERING
from pileus.server.db.tables.network import network
from pileus.server.db.tables.offering import network_offering, service_offering
from pileus.server.db.tables.place import zone
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import InsufficientCapacity, ParameterError
from pileus.server.domain.network import NetworkState
from pileus.server.elements import virtual_router
from pileus.server.hosts.operations import Waiting
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.client import Client, Refused
from pileus.testing.networks import guest, implement, net_of, router_of, running_network, states, virtual_network
from pileus.wire.operations import StartRouter
from pileus.wire.places import Isolation, NicSpec


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud()


@pytest.fixture
def user(world: World) -> Caller:
    return world.account()


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


def cards(world: World, vm_id: int, **rates: int) -> tuple[NicSpec, ...]:
    with world.reading() as tx:
        return nics.specs(tx, vm_id, **rates)


def tagged_virtual(admin: Client, **more: object) -> dict[str, Any]:
    return admin.one(
        "createNetworkOffering", name="tagged", displaytext="tagged", traffictype="Guest", guestiptype="Virtual",
        specifyvlan=True, **more,
    )  # fmt: skip


# ---- direct networks


def test_a_direct_network_hands_out_its_range_and_names_its_gateway(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    made = direct(admin, world, cloud, isdefault=True)
    assert (made["startip"], made["endip"], made["vlan"]) == ("192.0.2.10", "192.0.2.12", "77")
    assert (made["type"], made["isshared"], made["state"]) == ("Direct", True, "Setup")
    network_id = key_of(world, made["id"])
    vm_id = guest(world, user, cloud, network_id)
    world.result(implement(world, network_id))
    router = router_of(world, network_id)
    with world.reading() as tx:
        (card,) = nics.specs(tx, vm_id)
        (own,) = nics.specs(tx, router.id)
    assert (card.ip, card.gateway, card.network.tag) == ("192.0.2.10", "192.0.2.1", 77)
    assert own.ip == "192.0.2.11"
    config = next(found.config for _, found in world.hosts.world.guests() if found.name == router.name)
    assert config is not None
    assert (config.gateway, config.guest_ip, config.public) == ("192.0.2.1", "192.0.2.11", ())
    assert "source-nat" not in config.services
    world.assert_nothing_left()
    with pytest.raises(InsufficientCapacity):
        for name in ("second", "third"):
            guest(world, user, cloud, network_id, name=name)


@pytest.mark.parametrize(
    ("wishes", "parameter"),
    [
        ({"gateway": "192.0.2.11"}, "gateway"),
        ({"startip": "203.0.113.1"}, "startip"),
        ({"endip": "192.0.2.5"}, "endip"),
        ({"vlan": "5000"}, "vlan"),
        ({"vlan": None}, "vlan"),
        ({"netmask": "255.0.255.0"}, "netmask"),
        ({"startip": "198.51.100.15", "endip": "198.51.100.16", "gateway": "198.51.100.1"}, "overlaps"),
        ({"isshared": False}, "account"),
        ({"networkdomain": "not a domain"}, "domain"),
        ({"gateway": None}, "gateway"),
        ({"netmask": None}, "netmask"),
        ({"startip": None}, "startip"),
        ({"vlan": "0"}, "vlan"),
        ({"vlan": "77-78"}, "vlan"),
        ({"vlan": "untagged"}, "vlan"),
        ({"netmask": "255.255.255.252"}, "startip"),
        ({"gateway": "10.1.1.1", "startip": "10.1.1.40", "endip": "10.1.1.41"}, "guest network"),
        ({"gateway": "198.51.100.1", "startip": "198.51.100.50", "endip": "198.51.100.51"}, "public addresses"),
        ({"name": " "}, "name"),
        ({"displaytext": "a\x07"}, "displaytext"),
        ({"tags": ",".join(["x" * 250] * 2)}, "tags"),
    ],
)
def test_a_direct_network_that_cannot_be_is_refused_and_leaves_nothing(
    world: World, cloud: Cloud, admin: Client, wishes: dict[str, object], parameter: str
) -> None:
    before = states(world)
    with pytest.raises(Refused, match=f"(?i){parameter}") as refused:
        direct(admin, world, cloud, **wishes)
    assert refused.value.code == 431
    assert states(world) == before


def test_only_root_administrators_create_direct_networks(world: World, cloud: Cloud, admin: Client) -> None:
    for kind in (AccountType.USER, AccountType.DOMAIN_ADMIN, AccountType.RESOURCE_ADMIN):
        client = Client(world.db, world.account(type=kind))
        with pytest.raises(Refused) as refused:
            client.one(
                "createNetwork",
                name="lan",
                displaytext="lan",
                networkofferingid=offering(admin, DIRECT_NETWORK_OFFERING),
                zoneid=world.uuid(zone, cloud.zone),
                gateway="192.0.2.1",
                netmask="255.255.255.0",
                startip="192.0.2.10",
                vlan="77",
            )
        assert refused.value.code == 531


# ---- VLANs


def test_a_vlan_belongs_to_one_network_of_a_zone_until_that_is_deleted(
    world: World, cloud: Cloud, admin: Client
) -> None:
    first = direct(admin, world, cloud)
    other = {"gateway": "192.0.3.1", "startip": "192.0.3.10", "endip": "192.0.3.12"}
    for spelt in ("77", "vlan://77", " 77"):
        with pytest.raises(Refused, match="VLAN 77 is in use by network lan") as refused:
            direct(admin, world, cloud, vlan=spelt, **other)
        assert refused.value.code == 431
    assert direct(admin, world, world.cloud())["vlan"] == "77"
    world.result(admin.call("deleteNetwork", id=first["id"])["jobid"])
    assert direct(admin, world, cloud, **other)["vlan"] == "77"


def test_of_many_who_ask_for_one_vlan_at_once_one_gets_it(world: World, cloud: Cloud) -> None:
    def ask(n: int) -> bool:
        try:
            direct(
                Client(world.db), world, cloud, gateway=f"192.0.{n}.1", startip=f"192.0.{n}.10", endip=f"192.0.{n}.12"
            )
        except Refused as refused:
            assert refused.code == 431
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, range(4, 8))) == 1
    world.assert_nothing_left()


def test_a_vlan_of_public_addresses_is_not_given_to_a_network_nor_the_other_way(
    world: World, cloud: Cloud, admin: Client
) -> None:
    public = {"gateway": "203.0.113.1", "netmask": "255.255.255.0", "zoneid": world.uuid(zone, cloud.zone)}
    admin.call("createVlanIpRange", startip="203.0.113.10", vlan="77", **public)
    with pytest.raises(Refused, match="VLAN 77 is in use by public addresses"):
        direct(admin, world, cloud)
    admin.call("createVlanIpRange", startip="203.0.113.20", vlan="77", **public)
    direct(admin, world, cloud, vlan="78")
    with pytest.raises(Refused, match="VLAN 78 is in use by network lan") as refused:
        admin.call("createVlanIpRange", startip="203.0.114.10", vlan="78", **{**public, "gateway": "203.0.114.1"})
    assert refused.value.code == 431


def test_what_is_given_and_the_range_of_a_vlan_zone_keep_apart(world: World, cloud: Cloud, admin: Client) -> None:
    with world.db.write() as tx:
        tx.execute(update(zone).where(zone.c.id == cloud.zone).values(isolation="vlan"))
    with pytest.raises(Refused, match="VLAN 1003 belongs to the zone's range"):
        direct(admin, world, cloud, vlan="1003")
    direct(admin, world, cloud)
    with pytest.raises(Refused, match="VLAN 77 of 70-99") as refused:
        admin.call("updateZone", id=world.uuid(zone, cloud.zone), vlan="70-99")
    assert refused.value.code == 536
    admin.call("updateZone", id=world.uuid(zone, cloud.zone), vlan="78-99")


def test_the_guest_network_of_a_zone_keeps_apart_from_its_ranges(world: World, cloud: Cloud, admin: Client) -> None:
    direct(admin, world, cloud)
    for taken in ("192.0.2.128/25", "198.51.100.0/24"):
        with pytest.raises(Refused, match="overlaps") as refused:
            admin.call("updateZone", id=world.uuid(zone, cloud.zone), guestcidraddress=taken)
        assert refused.value.code == 431
    admin.call("updateZone", id=world.uuid(zone, cloud.zone), guestcidraddress="10.9.0.0/24")


def test_vlans_are_taken_in_sequence_and_the_lowest_free_one_again(world: World, cloud: Cloud) -> None:
    callers = [world.account() for _ in range(3)]
    made = [running_network(world, caller, cloud.zone) for caller in callers]
    assert [net_of(world, network_id).vnet for network_id in made] == [1000, 1001, 1002]
    world.result(Client(world.db, callers[1]).call("deleteNetwork", id=world.uuid(network, made[1]))["jobid"])
    again = running_network(world, world.account(), cloud.zone)
    assert net_of(world, again).vnet == 1001


def test_a_virtual_network_has_the_vlan_that_its_offering_lets_administrators_specify(
    world: World, cloud: Cloud, admin: Client, user: Caller
) -> None:
    made = {
        "networkofferingid": tagged_virtual(admin)["id"],
        "zoneid": world.uuid(zone, cloud.zone),
        "name": "own",
        "displaytext": "own",
    }
    with pytest.raises(Refused) as refused:
        Client(world.db, user).call("createNetwork", vlan="79", **made)
    assert refused.value.code == 531
    with pytest.raises(Refused, match="needs the VLAN"):
        admin.call("createNetwork", **made)
    direct(admin, world, cloud, vlan="79")
    with pytest.raises(Refused, match="VLAN 79 is in use"):
        admin.call("createNetwork", vlan="79", **made)
    shown = admin.one("createNetwork", vlan="80", account=user.account_name, domainid=1, **made)
    assert (shown["vlan"], shown["broadcastdomaintype"], shown["state"]) == ("80", "Vlan", "Setup")
    network_id = key_of(world, shown["id"])
    vm_id = guest(world, user, cloud, network_id)
    world.result(implement(world, network_id))
    assert (cards(world, vm_id)[0].network.isolation, cards(world, vm_id)[0].network.tag) == (Isolation.VLAN, 80)
    world.assert_nothing_left()
    for _ in range(2):
        world.reconcile("network-gc")
        world.settle()
        world.clock.advance(1300)
    assert (net_of(world, network_id).state, net_of(world, network_id).vnet) == (NetworkState.SETUP, 80)
    with pytest.raises(Refused, match="VLAN 80 is in use"):
        direct(admin, world, cloud, vlan="80", gateway="192.0.3.1", startip="192.0.3.10", endip="192.0.3.12")


# ---- guests on several networks


def test_a_guest_has_one_default_card_and_the_addresses_asked_for(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    own = virtual_network(world, user, cloud.zone)
    lan = key_of(world, direct(admin, world, cloud, isdefault=True)["id"])
    wanted = (
        {"networkid": world.uuid(network, lan), "ip": "192.0.2.12"},
        {"networkid": world.uuid(network, own), "ip": "10.1.1.40"},
    )
    vm_id = deployed(world, user, cloud, addresses=wanted)
    first, second = cards(world, vm_id)
    assert (first.ip, first.default, first.device_id) == ("10.1.1.40", True, 0)
    assert (second.ip, second.default, second.network.tag) == ("192.0.2.12", False, 77)
    shown = Client(world.db, user).call("listVirtualMachines")["virtualmachine"][0]["nic"]
    assert [(card["ipaddress"], card["isdefault"], card["type"]) for card in shown] == [
        ("10.1.1.40", True, "Virtual"),
        ("192.0.2.12", False, "Direct"),
    ]
    leases = {lease.ip: lease.default_gateway for at in (own, lan) for lease in config(world, at).leases}
    assert leases == {"10.1.1.40": True, "192.0.2.12": False}
    world.assert_nothing_left()


def config(world: World, network_id: int) -> virtual_router.RouterConfig:
    with world.reading() as tx:
        return virtual_router.config(tx, network_id, generation=1)


def test_without_a_default_route_guests_of_direct_networks_get_none(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    lan = key_of(world, direct(admin, world, cloud, isdefault=True)["id"])
    own = virtual_network(world, user, cloud.zone)
    for at in (lan, own):
        guest(world, user, cloud, at, name=f"g{at}")
    assert [lease.default_gateway for at in (lan, own) for lease in config(world, at).leases] == [True, True]
    admin.call("updateConfiguration", name="direct.network.no.default.route", value="true")
    assert [lease.default_gateway for at in (lan, own) for lease in config(world, at).leases] == [False, True]


def test_a_guest_whose_direct_network_is_full_is_refused_and_leaves_nothing(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    own = virtual_network(world, user, cloud.zone)
    lan = key_of(world, direct(admin, world, cloud, endip="192.0.2.10")["id"])
    guest(world, user, cloud, lan)
    before = world.left()
    with pytest.raises(InsufficientCapacity, match="no address is left in network lan") as refused:
        submitted(world, user, cloud, network_ids=(own, lan))
    assert refused.value.code == 533
    taken = ({"networkid": str(own)}, {"networkid": str(lan), "ip": "192.0.2.10"})
    with pytest.raises(ParameterError, match=r"192.0.2.10 is in use"):
        submitted(world, user, cloud, addresses=taken)
    world.assert_nothing_left(before)


def test_a_direct_network_without_an_address_for_its_router_fails_the_deploy_with_533(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    own = virtual_network(world, user, cloud.zone)
    lan = key_of(world, direct(admin, world, cloud, endip="192.0.2.10")["id"])
    job, _ = submitted(world, user, cloud, network_ids=(own, lan))
    code, text = world.failure(job)
    assert (code, "for its router" in text) == (533, True)
    assert net_of(world, lan).state is NetworkState.SETUP
    deployed(world, user, cloud, network_ids=(own,))


def test_networks_that_overlap_and_too_many_of_them_are_refused(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    own = virtual_network(world, user, cloud.zone)
    lans = [
        key_of(world, direct(admin, world, cloud, vlan=str(80 + n), startip=f"192.0.2.{20 + n}", endip=None)["id"])
        for n in range(2)
    ]
    with pytest.raises(ParameterError, match="overlap") as refused:
        submitted(world, user, cloud, network_ids=(own, *lans))
    assert refused.value.parameter == "networkids"
    with pytest.raises(ParameterError, match="at most 8 networks"):
        submitted(world, user, cloud, network_ids=tuple(range(1, 10)))


# ---- rates and other bounds


def test_a_router_is_told_how_many_connections_its_offering_allows(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    bounded = admin.one(
        "createNetworkOffering", name="few", displaytext="few", traffictype="Guest", guestiptype="Virtual",
        maxconnections=50,
    )["id"]  # fmt: skip
    made = Client(world.db, user).one(
        "createNetwork", name="a", displaytext="a", networkofferingid=bounded, zoneid=world.uuid(zone, cloud.zone)
    )
    assert config(world, key_of(world, made["id"])).max_connections == 50
    assert config(world, virtual_network(world, world.account(), cloud.zone)).max_connections == 0


def test_the_rate_of_a_card_comes_from_its_offering_before_the_settings(
    world: World, cloud: Cloud, user: Caller, admin: Client
) -> None:
    own = virtual_network(world, user, cloud.zone)
    lan = key_of(world, direct(admin, world, cloud)["id"])
    vm_id = guest(world, user, cloud, own, lan)
    world.result(implement(world, own))
    router = router_of(world, own)
    settings = {"rate_mbps": 7, "other_rate_mbps": 9, "public_rate_mbps": 11}

    def rates() -> list[int]:
        return [card.rate_mbps for of in (vm_id, router.id) for card in cards(world, of, **settings)]

    assert rates() == [7, 9, 0, 11]
    with world.db.write() as tx:
        tx.execute(update(network_offering).values(rate_mbps=20))
    assert rates() == [20, 20, 0, 11]
    with world.db.write() as tx:
        tx.execute(update(service_offering).where(service_offering.c.id == cloud.offering).values(rate_mbps=0))
        mine = select(service_offering.c.id).where(service_offering.c.is_system == 1)
        tx.execute(update(service_offering).where(service_offering.c.id.in_(mine)).values(rate_mbps=50))
    assert rates() == [0, 20, 0, 50]


@pytest.mark.parametrize(("offered", "rate"), [(None, 33), (0, 0), (25, 25)])
def test_a_router_starts_with_the_rate_of_its_network_on_the_public_side(
    world: World, cloud: Cloud, user: Caller, offered: int | None, rate: int
) -> None:
    with world.db.write() as tx:
        change(tx, keys.network_throttling_rate, "33", user_id=2)
        tx.execute(update(network_offering).values(rate_mbps=offered))
    started: list[StartRouter] = []

    def look(waiting: Waiting) -> None:
        if isinstance(waiting.operation, StartRouter):
            started.append(waiting.operation)

    world.instead = look
    running_network(world, user, cloud.zone)
    assert [[card.rate_mbps for card in operation.router.nics] for operation in started] == [[0, rate]]
