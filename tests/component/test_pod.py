"""Pods through the API."""

import pytest
from places import cluster, events, pod, refused, zone
from sqlalchemy import select, update

from pileus.server.db.tables.network import pod_ip
from pileus.server.db.transaction import Database
from pileus.server.domain.account import AccountType
from pileus.testing import World
from pileus.testing.client import Client, counted_statements


@pytest.fixture
def client(db: Database) -> Client:
    return Client(db)


def addresses(database: Database) -> list[str]:
    with database.read() as tx:
        return sorted(tx.execute(select(pod_ip.c.address)).scalars())


def hold_address(database: Database, address: str) -> None:
    """Have a system VM hold a private address."""
    with database.write() as tx:
        tx.execute(update(pod_ip).where(pod_ip.c.address == address).values(vm_id=1))


def test_a_pod_tells_what_it_was_made_with_and_has_its_addresses(client: Client, db: Database) -> None:
    here = zone(client)
    made = pod(client, here["id"])
    assert made == {
        "id": made["id"],
        "name": "p1",
        "zoneid": here["id"],
        "zonename": "z1",
        "gateway": "192.168.10.1",
        "netmask": "255.255.255.0",
        "startip": "192.168.10.10",
        "endip": "192.168.10.19",
        "allocationstate": "Enabled",
    }
    assert client.one("listPods") == made
    assert addresses(db) == [f"192.168.10.{n}" for n in range(10, 20)]
    assert events(db)[-1] == ("POD.CREATE", "Pod p1 was created")


def test_a_range_without_an_end_is_one_address(client: Client, db: Database) -> None:
    assert pod(client, zone(client)["id"], endip=None)["endip"] == "192.168.10.10"
    assert addresses(db) == ["192.168.10.10"]


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"name": "p "}, "name"),
        ({"zoneid": "7"}, "zoneid"),
        ({"gateway": "192.168.10"}, "gateway"),
        ({"gateway": "192.168.10.0"}, "gateway"),
        ({"gateway": "192.168.10.255"}, "gateway"),
        ({"netmask": "0.0.0.255"}, "netmask"),
        ({"netmask": "24"}, "netmask"),
        ({"netmask": "255.0.255.0"}, "netmask"),
        ({"netmask": "255.255.255.255"}, "netmask"),
        ({"netmask": "0.0.0.0"}, "netmask"),
        ({"startip": "192.168.11.10", "endip": "192.168.11.19"}, "startip"),
        ({"endip": "192.168.11.19"}, "endip"),
        ({"endip": "192.168.10.9"}, "endip"),
        ({"startip": "192.168.10.0"}, "network or broadcast"),
        ({"endip": "192.168.10.255"}, "network or broadcast"),
        ({"startip": "192.168.10.1"}, "gateway"),
        ({"startip": "x"}, "startip"),
        ({"allocationstate": "x"}, "allocationstate"),
        ({"gateway": "10.0.0.1", "netmask": "255.0.0.0", "startip": "10.0.0.2", "endip": "10.2.0.0"}, "65536"),
    ],
)
def test_what_makes_no_pod_is_refused_and_leaves_nothing(
    client: Client, db: Database, wrong: dict[str, str], parameter: str
) -> None:
    here = zone(client)
    with refused(431, parameter):
        pod(client, wrong.pop("zoneid", here["id"]), **wrong)
    assert client.call("listPods") == {}
    assert addresses(db) == []


def test_private_addresses_belong_to_one_pod_of_the_whole_cloud(client: Client) -> None:
    pod(client, zone(client)["id"])
    other = zone(client, "z2")["id"]
    for start, end in (("192.168.10.19", "192.168.10.30"), ("192.168.10.2", "192.168.10.10"), ("192.168.10.12", None)):
        with refused(431, "overlaps", "p1"):
            pod(client, other, startip=start, endip=end)
    assert pod(client, other, startip="192.168.10.20", endip="192.168.10.29")["name"] == "p1"


def test_pods_of_a_zone_share_a_subnet_only_where_the_setting_lets_them(client: Client) -> None:
    here = zone(client)["id"]
    pod(client, here)
    beside = {"startip": "192.168.10.30", "endip": "192.168.10.31"}
    with refused(431, "netmask", "check.pod.cidrs"):
        pod(client, here, "p2", **beside)
    client.call("updateConfiguration", name="check.pod.cidrs", value="false")
    assert pod(client, here, "p2", **beside)["startip"] == "192.168.10.30"
    client.call("updateConfiguration", name="check.pod.cidrs", value="true")
    assert client.one("updatePod", id=client.call("listPods", name="p2")["pod"][0]["id"], name="p3")["name"] == "p3"
    with refused(431, "netmask", "check.pod.cidrs"):
        client.call("updatePod", id=client.call("listPods", name="p3")["pod"][0]["id"], endip="192.168.10.33")


def test_a_name_is_used_once_per_zone(client: Client) -> None:
    here = zone(client)["id"]
    first = pod(client, here)
    apart = {"gateway": "192.168.11.1", "startip": "192.168.11.30", "endip": "192.168.11.31"}
    with refused(431, "named p1"):
        pod(client, here, **apart)
    second = pod(client, here, "p2", **apart)
    with refused(431, "p1"):
        client.call("updatePod", id=second["id"], name="p1")
    client.call("deletePod", id=first["id"])
    assert client.one("updatePod", id=second["id"], name="p1")["name"] == "p1"


def test_an_update_moves_the_range_and_keeps_what_is_in_use(client: Client, db: Database) -> None:
    made = pod(client, zone(client)["id"])
    hold_address(db, "192.168.10.12")
    with refused(536, "192.168.10.12"):
        client.call("updatePod", id=made["id"], startip="192.168.10.13")
    with refused(536, "gateway"):
        client.call("updatePod", id=made["id"], gateway="192.168.10.2")
    assert client.one("listPods") == made
    changed = client.one("updatePod", id=made["id"], startip="192.168.10.12", endip="192.168.10.25", name="new")
    assert changed == {**made, "startip": "192.168.10.12", "endip": "192.168.10.25", "name": "new"}
    assert addresses(db) == [f"192.168.10.{n}" for n in range(12, 26)]
    assert events(db)[-1] == ("POD.EDIT", "Pod new was changed")
    for wrong in ({"name": ""}, {"startip": "192.168.9.1"}, {"netmask": "x"}, {"allocationstate": "x"}):
        with refused(431, next(iter(wrong))):
            client.call("updatePod", id=made["id"], **wrong)


def test_a_pod_with_something_in_it_is_not_deleted(client: Client, db: Database) -> None:
    here = zone(client)["id"]
    made = pod(client, here)
    inside = cluster(client, here, made["id"])
    with refused(536, "1 clusters"):
        client.call("deletePod", id=made["id"])
    client.call("deleteCluster", id=inside["id"])
    hold_address(db, "192.168.10.12")
    with refused(536, "192.168.10.12"):
        client.call("deletePod", id=made["id"])
    with db.write() as tx:
        tx.execute(update(pod_ip).values(vm_id=None))
    assert client.call("deletePod", id=made["id"])["success"] is True
    assert client.call("listPods") == {}
    assert addresses(db) == []
    with refused(431, "id"):
        client.call("deletePod", id=made["id"])


def test_lists_filter_and_page(client: Client) -> None:
    client.call("updateConfiguration", name="check.pod.cidrs", value="false")
    east, west = zone(client, "east")["id"], zone(client, "west")["id"]
    for number in range(4):
        start = f"192.168.10.{10 + 2 * number}"
        pod(client, (east, west)[number % 2], f"p{number}", startip=start, endip=None)
    client.call("updatePod", id=client.one("listPods", name="p1")["id"], allocationstate="Disabled")
    assert client.names("listPods", zoneid=west) == ["p1", "p3"]
    assert client.names("listPods", allocationstate="disabled") == ["p1"]
    assert client.names("listPods", keyword="P2") == ["p2"]
    body = client.call("listPods", page=2, pagesize=3)
    assert (body["count"], [entry["name"] for entry in body["pod"]]) == (4, ["p3"])
    with refused(431, "allocationstate"):
        client.call("listPods", allocationstate="x")


def test_a_page_costs_the_same_number_of_statements_whatever_it_holds(client: Client, db: Database) -> None:
    client.call("updateConfiguration", name="check.pod.cidrs", value="false")
    here = zone(client)["id"]
    pod(client, here, "p0", endip=None)
    client.call("listPods")
    with counted_statements(db) as few:
        client.call("listPods")
    for number in range(1, 20):
        pod(client, here, f"p{number}", startip=f"192.168.10.{10 + number}", endip=None)
    with counted_statements(db) as many:
        assert client.call("listPods")["count"] == 20
    assert len(many) == len(few)


def test_pods_are_for_administrators(world: World) -> None:
    for kind in (AccountType.USER, AccountType.DOMAIN_ADMIN):
        with refused(401):
            Client(world.db, world.account(type=kind)).call("listPods")
    with refused(401):
        Client(world.db, world.account(type=AccountType.RESOURCE_ADMIN)).call("createPod", name="x")
