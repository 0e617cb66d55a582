"""Clusters and hypervisor types through the API."""

import pytest
from places import cluster, events, group, host, pod, refused, zone

from pileus.server.db.transaction import Database
from pileus.server.domain.account import AccountType
from pileus.testing import World
from pileus.testing.client import Client, counted_statements


@pytest.fixture
def client(db: Database) -> Client:
    return Client(db)


def test_a_cluster_tells_what_it_was_made_with(client: Client, db: Database) -> None:
    here = zone(client)
    place = pod(client, here["id"])
    made = cluster(client, here["id"], place["id"], hypervisor="kvm", clustertype="cloudmanaged")
    assert made == {
        "id": made["id"],
        "name": "c1",
        "zoneid": here["id"],
        "zonename": "z1",
        "podid": place["id"],
        "podname": "p1",
        "hypervisortype": "KVM",
        "clustertype": "CloudManaged",
        "allocationstate": "Enabled",
        "managedstate": "Managed",
    }
    assert client.one("listClusters") == made
    assert events(db)[-1] == ("CLUSTER.CREATE", "Cluster c1 was added")


@pytest.mark.parametrize(
    ("wrong", "parameter"),
    [
        ({"clustername": "c\n"}, "clustername"),
        ({"hypervisor": "Bochs"}, "hypervisor"),
        ({"hypervisor": "None"}, "hypervisor"),
        ({"clustertype": "x"}, "clustertype"),
        ({"allocationstate": "x"}, "allocationstate"),
        ({"podid": None}, "podid"),
        ({"podid": "99"}, "podid"),
    ],
)
def test_what_makes_no_cluster_is_refused_and_leaves_nothing(
    client: Client, wrong: dict[str, str | None], parameter: str
) -> None:
    here = zone(client)["id"]
    place = pod(client, here)["id"]
    with refused(431, parameter):
        cluster(client, here, place, **wrong)
    assert client.call("listClusters") == {}


def test_the_pod_must_be_in_the_zone(client: Client) -> None:
    place = pod(client, zone(client)["id"])["id"]
    with refused(431, "p1"):
        cluster(client, zone(client, "z2")["id"], place)


def test_a_name_is_used_once_per_pod(client: Client) -> None:
    here, place, first = group(client)
    with refused(431, "c1"):
        cluster(client, here, place)
    second = cluster(client, here, place, "c2")["id"]
    with refused(431, "c1"):
        client.call("updateCluster", id=second, clustername="c1")
    client.call("deleteCluster", id=first)
    assert client.one("updateCluster", id=second, clustername="c1")["name"] == "c1"


def test_an_update_changes_what_is_given(client: Client, db: Database) -> None:
    _, _, made = group(client)
    changed = client.one(
        "updateCluster",
        id=made,
        clustername="new",
        hypervisor="KVM",
        clustertype="ExternalManaged",
        allocationstate="Disabled",
        managedstate="managed",
    )
    named = ("name", "hypervisortype", "clustertype", "allocationstate")
    assert tuple(changed[name] for name in named) == ("new", "KVM", "ExternalManaged", "Disabled")
    assert events(db)[-1] == ("CLUSTER.EDIT", "Cluster new was changed")
    for wrong in (
        {"clustername": ""},
        {"hypervisor": "None"},
        {"clustertype": "x"},
        {"allocationstate": "x"},
        {"managedstate": "Unmanaged"},
    ):
        with refused(431, next(iter(wrong))):
            client.call("updateCluster", id=made, **wrong)
    assert client.one("listClusters") == changed


def test_a_cluster_with_hosts_keeps_its_hypervisor_and_is_not_deleted(client: Client, db: Database) -> None:
    here, _, made = group(client)
    inside = host(client, here, made)["id"]
    with refused(536, "hypervisor"):
        client.call("updateCluster", id=made, hypervisor="KVM")
    with refused(536, "1 hosts"):
        client.call("deleteCluster", id=made)
    client.call("deleteHost", id=inside)
    pool = client.one("createStoragePool", zoneid=here, clusterid=made, name="s1", url="SharedMountPoint:///s1")["id"]
    with refused(536, "1 storage pools"):
        client.call("deleteCluster", id=made)
    client.call("deleteStoragePool", id=pool)
    client.call("deleteCluster", id=made)
    assert client.call("listClusters") == {}
    assert events(db)[-1] == ("CLUSTER.DELETE", "Cluster c1 was deleted")


def test_lists_filter_by_everything_they_say(client: Client) -> None:
    here, place, first = group(client)
    cluster(client, here, place, "c2", hypervisor="KVM", clustertype="ExternalManaged", allocationstate="Disabled")
    for given, names in (
        ({"id": first}, ["c1"]),
        ({"hypervisor": "kvm"}, ["c2"]),
        ({"clustertype": "externalmanaged"}, ["c2"]),
        ({"allocationstate": "ENABLED"}, ["c1"]),
        ({"managedstate": "Managed"}, ["c1", "c2"]),
        ({"managedstate": "Unmanaged"}, []),
        ({"zoneid": here, "podid": place}, ["c1", "c2"]),
        ({"keyword": "C2"}, ["c2"]),
        ({"name": "c1"}, ["c1"]),
    ):
        assert client.names("listClusters", **given) == names
    with refused(431, "hypervisor"):
        client.call("listClusters", hypervisor="Bochs")


def test_hypervisors_are_those_of_a_zones_clusters(client: Client, world: World) -> None:
    user = Client(world.db, world.account("alice"))
    assert user.call("listHypervisors") == {}
    here, place, _ = group(client)
    cluster(client, here, place, "c2", hypervisor="KVM")
    empty = zone(client, "empty")["id"]
    assert user.names("listHypervisors") == ["KVM", "Simulator"]
    assert user.names("listHypervisors", zoneid=here) == ["KVM", "Simulator"]
    assert user.call("listHypervisors", zoneid=empty) == {}


def test_a_page_costs_the_same_number_of_statements_whatever_it_holds(client: Client, db: Database) -> None:
    here, place, _ = group(client)
    client.call("listClusters")
    with counted_statements(db) as few:
        client.call("listClusters")
    for number in range(20):
        cluster(client, here, place, f"more{number}")
    with counted_statements(db) as many:
        assert client.call("listClusters")["count"] == 21
    assert len(many) == len(few)


def test_clusters_are_for_administrators(world: World) -> None:
    for kind in (AccountType.USER, AccountType.DOMAIN_ADMIN):
        with refused(401):
            Client(world.db, world.account(type=kind)).call("listClusters")
