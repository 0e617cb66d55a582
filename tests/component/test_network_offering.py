"""Network offerings through the API."""

import pytest
from places import events, refused

from pileus.server.db.seed import seed
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Database
from pileus.testing import World
from pileus.testing.client import Client, counted_statements

DIRECT = {
    "name": "Tagged lan",
    "displaytext": "A direct tagged network",
    "traffictype": "guest",
    "guestiptype": "direct",
}
ADDRESSES = {"gateway": "192.0.2.1", "netmask": "255.255.255.0", "startip": "192.0.2.10", "endip": "192.0.2.12"}


@pytest.fixture
def client(db: Database) -> Client:
    return Client(db)


def test_a_network_offering_tells_what_it_was_made_with(client: Client, db: Database) -> None:
    made = client.one(
        "createNetworkOffering", **DIRECT, networkrate=50, tags="a, b,", maxconnections=100, availability="unavailable"
    )
    expected = {
        "name": "Tagged lan",
        "displaytext": "A direct tagged network",
        "traffictype": "Guest",
        "guestiptype": "Direct",
        "specifyvlan": True,
        "isdefault": False,
        "availability": "Unavailable",
        "networkrate": 50,
        "maxconnections": 100,
        "tags": "a,b",
    }
    assert {name: made[name] for name in expected} == expected
    assert client.one("listNetworkOfferings", id=made["id"]) == made
    assert events(db)[-1] == ("NETWORK.OFFERING.CREATE", "Network offering Tagged lan was created")


def test_an_offering_without_a_rate_has_that_of_the_setting(client: Client) -> None:
    made = client.one("createNetworkOffering", **DIRECT)
    assert (made["networkrate"], made["availability"]) == (200, "Optional")
    client.call("updateConfiguration", name="network.throttling.rate", value="30")
    assert client.one("listNetworkOfferings", id=made["id"])["networkrate"] == 30


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"name": "\t"}, "name"),
        ({"name": "DefaultDirectNetwork"}, "exists"),
        ({"displaytext": " "}, "displaytext"),
        ({"traffictype": "Public"}, "traffictype"),
        ({"traffictype": "radio"}, "traffictype"),
        ({"guestiptype": "radio"}, "guestiptype"),
        ({"availability": "maybe"}, "availability"),
        ({"specifyvlan": "false"}, "specifyvlan"),
        ({"networkrate": "-1"}, "networkrate"),
        ({"networkrate": "1000001"}, "networkrate"),
        ({"networkrate": "fast"}, "networkrate"),
        ({"maxconnections": "0"}, "maxconnections"),
        ({"maxconnections": "1000001"}, "maxconnections"),
    ],
)
def test_what_makes_no_network_offering_is_refused(client: Client, wrong: dict[str, str], parameter: str) -> None:
    before = client.names("listNetworkOfferings")
    with refused(431, parameter):
        client.call("createNetworkOffering", **{**DIRECT, **wrong})
    assert client.names("listNetworkOfferings") == before


@pytest.mark.parametrize("missing", DIRECT)
def test_what_a_network_offering_needs_must_be_given(client: Client, missing: str) -> None:
    with refused(431, missing):
        client.call("createNetworkOffering", **{name: text for name, text in DIRECT.items() if name != missing})


def test_a_network_offering_goes_once_no_network_has_it(client: Client, world: World) -> None:
    cloud = world.cloud()
    made = client.one("createNetworkOffering", **DIRECT)
    lan = client.one(
        "createNetwork", name="lan", displaytext="lan", networkofferingid=made["id"], vlan="77", **ADDRESSES,
        zoneid=world.uuid(zone, cloud.zone),
    )  # fmt: skip
    assert lan["networkofferingname"] == "Tagged lan"
    with refused(536, "1 networks have"):
        client.call("deleteNetworkOffering", id=made["id"])
    world.result(client.call("deleteNetwork", id=lan["id"])["jobid"])
    assert client.call("deleteNetworkOffering", id=made["id"]) == {"success": True}
    assert events(world.db)[-1] == ("NETWORK.OFFERING.DELETE", "Network offering Tagged lan was deleted")
    assert "Tagged lan" not in client.names("listNetworkOfferings")
    with refused(431, "id"):
        client.call("deleteNetworkOffering", id=made["id"])
    with refused(431, "exists or existed"):
        client.call("createNetworkOffering", **DIRECT)
    with refused(431, "networkofferingid"):
        client.one(
            "createNetwork", name="lan", displaytext="lan", networkofferingid=made["id"], vlan="77", **ADDRESSES,
            zoneid=world.uuid(zone, cloud.zone),
        )  # fmt: skip


def test_built_in_offerings_are_not_deleted(client: Client) -> None:
    for offering in client.call("listNetworkOfferings")["networkoffering"]:
        with refused(431, "built in"):
            client.call("deleteNetworkOffering", id=offering["id"])


def test_nothing_is_created_from_an_unavailable_offering(client: Client, world: World) -> None:
    cloud = world.cloud()
    made = client.one("createNetworkOffering", **DIRECT, availability="Unavailable")
    with refused(431, "unavailable"):
        client.call(
            "createNetwork", name="lan", displaytext="lan", networkofferingid=made["id"], vlan="77", **ADDRESSES,
            zoneid=world.uuid(zone, cloud.zone),
        )  # fmt: skip
    assert client.call("listNetworks", listall=True) == {}


def test_a_second_start_of_the_server_adds_no_offering(client: Client, db: Database) -> None:
    before = client.names("listNetworkOfferings")
    db.run(seed)
    assert client.names("listNetworkOfferings") == before


def test_a_page_of_network_offerings_costs_the_same_whatever_it_holds(client: Client, db: Database) -> None:
    client.call("listNetworkOfferings")
    with counted_statements(db) as few:
        before = client.call("listNetworkOfferings")["count"]
    for number in range(10):
        client.call("createNetworkOffering", **{**DIRECT, "name": f"more{number}"})
    with counted_statements(db) as many:
        assert client.call("listNetworkOfferings")["count"] == before + 10
    assert len(many) == len(few)


def test_network_offerings_are_listed_with_their_filters(client: Client, world: World) -> None:
    user = Client(world.db, world.account("alice"))
    assert user.names("listNetworkOfferings") == ["DefaultVirtualizedNetwork", "DefaultDirectNetwork"]
    everything = client.names("listNetworkOfferings")
    assert len(everything) > 2
    for given, names in (
        ({"isdefault": True}, ["DefaultVirtualizedNetwork"]),
        ({"availability": "required"}, ["DefaultVirtualizedNetwork"]),
        ({"specifyvlan": True}, ["DefaultDirectNetwork"]),
        ({"guestiptype": "direct", "specifyvlan": True}, ["DefaultDirectNetwork"]),
        ({"traffictype": "PUBLIC"}, ["System-Public-Network"]),
        ({"name": "DefaultDirectNetwork"}, ["DefaultDirectNetwork"]),
        ({"keyword": "virtualized"}, ["DefaultVirtualizedNetwork"]),
    ):
        assert client.names("listNetworkOfferings", **given) == names
    for parameter in ("availability", "traffictype", "guestiptype"):
        with refused(431, parameter):
            client.call("listNetworkOfferings", **{parameter: "x"})


def test_a_network_offering_changes_its_text_and_availability(client: Client, db: Database) -> None:
    made = client.one("createNetworkOffering", **DIRECT)
    changed = client.one(
        "updateNetworkOffering", id=made["id"], displaytext="new", availability="unavailable", name="Tagged"
    )
    assert changed == {**made, "displaytext": "new", "availability": "Unavailable", "name": "Tagged"}
    assert events(db)[-1] == ("NETWORK.OFFERING.EDIT", "Network offering Tagged was changed")
    for name in ("System-Public-Network", "DefaultVirtualizedNetwork", "DefaultDirectNetwork"):
        with refused(431, "exists or existed"):
            client.call("updateNetworkOffering", id=made["id"], name=name)
        built_in = client.one("listNetworkOfferings", name=name)["id"]
        with refused(431, "built-in"):
            client.call("updateNetworkOffering", id=built_in, name="x")
    system = client.one("listNetworkOfferings", name="System-Public-Network")["id"]
    with refused(431, "availability"):
        client.call("updateNetworkOffering", id=system, availability="Optional")
    with refused(431, "id"):
        client.call("updateNetworkOffering", name="x")
