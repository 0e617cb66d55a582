"""listCapacity: every type, from the counters that claims guard, in a fixed number of queries."""

import pytest
from places import refused
from sqlalchemy import insert, update
from vm_setup import deployed, steady_cloud

from pileus.server.db.tables.host import host, host_stats
from pileus.server.db.tables.network import pod_ip
from pileus.server.db.tables.place import cluster, pod, zone
from pileus.server.domain.account import AccountType
from pileus.testing import World
from pileus.testing.builders import GIB, Cloud
from pileus.testing.client import Client, counted_statements


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def admin(world: World) -> Client:
    return Client(world.db)


def figures(admin: Client, **filters: object) -> dict[str, tuple[int, int, str]]:
    rows = admin.call("listCapacity", **filters).get("capacity", [])
    return {row["name"]: (row["capacityused"], row["capacitytotal"], row["percentused"]) for row in rows}


def test_every_type_is_told_with_what_is_used_and_what_there_is(world: World, cloud: Cloud, admin: Client) -> None:
    with world.db.write() as tx:
        for number in range(4):
            values = {"pod_id": cloud.pod, "address": f"192.168.10.{number + 2}", "vm_id": 9 if number == 0 else None}
            tx.execute(insert(pod_ip).values(**values))
        space = {"storage_total_bytes": 1000, "storage_used_bytes": 250}
        tx.execute(update(host_stats).where(host_stats.c.host_id == cloud.storage).values(**space))
    deployed(world, world.account("alice"), cloud, name="web")
    told = figures(admin)
    # A guest of 500 MHz and 512 MiB, and its router of 100 MHz and 64 MiB, on two hosts of 8 x 2000 MHz and 16 GiB.
    assert told["CPU"] == (600, 32000, "1.88")
    assert told["MEMORY"] == (576 << 20, 32 * GIB, "1.76")
    assert told["STORAGE_ALLOCATED"] == (64 << 20, 1 << 40, "0.01")
    assert told["STORAGE"][1] == 1 << 40
    assert told["PUBLIC_IP"] == (1, 10, "10.00")
    assert told["PRIVATE_IP"] == (1, 4, "25.00")
    assert told["SECONDARY_STORAGE"] == (250, 1000, "25.00")
    assert told["VLAN"] == (1, 10, "10.00")
    assert len(told) == 8


def test_what_belongs_to_a_pod_says_so_and_filters_choose(world: World, cloud: Cloud, admin: Client) -> None:
    second = world.pod(cloud.zone)
    beside = world.cluster(second)
    lone = world.host(beside, cpus=2)
    rows = admin.call("listCapacity", type=1)["capacity"]
    assert [(row["podid"], row["capacitytotal"]) for row in rows] == [
        (world.uuid(pod, cloud.pod), 32000),
        (world.uuid(pod, second), 4000),
    ]
    assert all("clusterid" not in row for row in rows)
    assert figures(admin, podid=world.uuid(pod, second))["CPU"][1] == 4000
    (one,) = admin.call("listCapacity", clusterid=world.uuid(cluster, beside), type=1)["capacity"]
    assert one["clusterid"] == world.uuid(cluster, beside)
    assert set(figures(admin, hostid=world.uuid(host, lone))) == {"CPU", "MEMORY"}
    assert figures(admin, hostid=world.uuid(host, lone))["CPU"][1] == 4000
    elsewhere = world.zone()
    assert set(figures(admin, zoneid=world.uuid(zone, elsewhere))) == {"VLAN"}


def test_hosts_that_are_down_offer_nothing(world: World, cloud: Cloud, admin: Client) -> None:
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == cloud.hosts[0]).values(state="Down"))
    assert figures(admin)["CPU"][1] == 16000


def test_the_number_of_queries_does_not_grow_with_the_cloud(world: World, cloud: Cloud, admin: Client) -> None:
    admin.call("listCapacity")
    with counted_statements(world.db) as few:
        admin.call("listCapacity")
    for _ in range(3):
        place = world.pod(world.zone())
        world.pool(world.cluster(place))
        world.host(world.cluster(place))
    with counted_statements(world.db) as many:
        admin.call("listCapacity")
    assert len(many) == len(few)


def test_pages_and_wrong_types_are_as_in_every_list(cloud: Cloud, admin: Client) -> None:
    assert admin.call("listCapacity", page=2, pagesize=3)["count"] == 7
    assert len(admin.call("listCapacity", page=1, pagesize=3)["capacity"]) == 3
    with refused(431, "type"):
        admin.call("listCapacity", type=99)


def test_users_and_domain_administrators_do_not_see_the_clouds_capacity(world: World, cloud: Cloud) -> None:
    for kind in (AccountType.USER, AccountType.DOMAIN_ADMIN):
        with refused(401):
            Client(world.db, world.account(type=kind)).call("listCapacity")
    assert Client(world.db, world.account(type=AccountType.RESOURCE_ADMIN)).call("listCapacity")["count"] == 7
