"""Allocators of somebody else, installed by entry points; settings that say who is asked; over-provisioning."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update
from structlog.testing import capture_logs
from vm_setup import deployed, row_of, steady_cloud

from pileus.server.config import change, every, keys
from pileus.server.config.key import Key
from pileus.server.db.tables.host import host, host_capacity, storage_pool, storage_pool_tag
from pileus.server.db.tables.template import os_type
from pileus.server.domain.errors import InsufficientCapacity
from pileus.server.placement import allocators
from pileus.server.placement.demand import Demand, DiskDemand, Place
from pileus.server.placement.place import must_place, place
from pileus.testing import World
from pileus.testing.builders import GIB, Cloud

POLICY = """
from pileus.server.placement.allocators import Unfit


class Newest:
    def key(self, wanted, host):
        if host.name.endswith("1"):
            raise Unfit("its rack is too hot")
        return -host.id


class Quota:
    def key(self, wanted, disk, pool):
        if "archive" in pool.tags:
            raise Unfit("it is for archives")
        return pool.allocated_bytes


class Broken:
    def key(self, wanted, host):
        raise RuntimeError("the policy server is away")
"""

ENTRY_POINTS = """
[pileus.server.host_allocators]
newest = policy_of_a_test:Newest
broken = policy_of_a_test:Broken
absent = policy_that_is_not_there:Nothing

[pileus.server.storage_allocators]
quota = policy_of_a_test:Quota
"""


@pytest.fixture
def cloud(world: World) -> Cloud:
    made = world.cloud(hosts=3, cpus=4, memory=4 * GIB)
    setting(world, keys.vm_allocation_algorithm, "firstfit")
    return made


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with allocators, as pip would install it."""
    (tmp_path / "policy_of_a_test.py").write_text(POLICY)
    about = tmp_path / "policy_of_a_test-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: policy-of-a-test\nVersion: 1\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    allocators._loaded.cache_clear()
    yield
    allocators._loaded.cache_clear()
    sys.modules.pop("policy_of_a_test", None)


def setting(world: World, key: Key[Any], value: str) -> None:
    with world.db.write() as tx:
        change(tx, key, value, user_id=1)


def demand(cloud: Cloud, **wishes: Any) -> Demand:
    return Demand(**{"name": "web", "zone_id": cloud.zone, "cpus": 1, "cpu_mhz": 1000, "ram_mib": 1024, **wishes})


def placed(world: World, wanted: Demand) -> Place:
    with world.db.write() as tx:
        found = place(tx, wanted)
    assert found is not None
    return found


def test_an_installed_allocator_orders_hosts(world: World, cloud: Cloud, installed: None) -> None:
    setting(world, keys.host_allocators_order, "newest,algorithm")

    assert [placed(world, demand(cloud, ram_mib=4096)).host_id for _ in "ab"] == [cloud.hosts[2], cloud.hosts[1]]


def test_an_installed_allocator_refuses_with_a_reason(world: World, cloud: Cloud, installed: None) -> None:
    setting(world, keys.host_allocators_order, "algorithm, newest")
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == cloud.hosts[0]).values(name="rack-1"))
        tx.execute(update(host).where(host.c.id.in_(cloud.hosts[1:])).values(state="Down"))

    reasons = r"rack-1: its rack is too hot; .*: it is Down"
    with pytest.raises(InsufficientCapacity, match=reasons), world.db.write() as tx:
        must_place(tx, demand(cloud))

    with world.db.read() as tx:
        assert set(tx.execute(select(host_capacity.c.ram_used_mib)).scalars()) == {0}


def test_an_installed_storage_allocator_orders_and_refuses(world: World, cloud: Cloud, installed: None) -> None:
    setting(world, keys.storage_allocators_order, "quota")
    with world.db.write() as tx:
        tx.execute(insert(storage_pool_tag).values(pool_id=cloud.pool, tag="archive"))
    wanted = demand(cloud, disks=(DiskDemand(1, GIB),))
    with pytest.raises(InsufficientCapacity, match="it is for archives"), world.db.write() as tx:
        must_place(tx, wanted)
    pools = [world.pool(cloud.cluster), world.pool(cloud.cluster)]

    assert [placed(world, wanted).pools[1] for _ in "abc"] == [pools[0], pools[1], pools[0]]


def test_an_allocator_that_fails_fails_the_placement(world: World, cloud: Cloud, installed: None) -> None:
    setting(world, keys.host_allocators_order, "broken")

    with pytest.raises(RuntimeError, match="policy server"):
        placed(world, demand(cloud))


def test_names_that_nothing_is_installed_for_are_told_and_passed_over(
    world: World, cloud: Cloud, installed: None
) -> None:
    setting(world, keys.host_allocators_order, "absent,nonsense,vertical")

    with capture_logs() as logs:
        assert placed(world, demand(cloud)).host_id == cloud.hosts[0]

    assert {entry["allocator"] for entry in logs if entry["log_level"] == "error"} == {"absent", "nonsense"}


def test_horizontal_allocation_gives_every_host_its_turn(world: World, cloud: Cloud) -> None:
    setting(world, keys.vm_allocation_algorithm, "horizontal")

    assert [placed(world, demand(cloud, ram_mib=256)).host_id for _ in range(6)] == [*cloud.hosts, *cloud.hosts]


def test_storage_is_spread_horizontally(world: World, cloud: Cloud) -> None:
    setting(world, keys.storage_allocators_order, "horizontal")
    pools = [cloud.pool, world.pool(cloud.cluster)]
    with world.db.write() as tx:
        tx.execute(update(storage_pool).values(allocatable_bytes=100 * GIB))
    wanted = demand(cloud, ram_mib=256, disks=(DiskDemand(1, GIB),))

    assert [placed(world, wanted).pools[1] for _ in range(4)] == [*pools, *pools]


def test_guests_of_an_account_are_dispersed(world: World) -> None:
    cloud = steady_cloud(world)
    setting(world, keys.vm_allocation_algorithm, "userdispersing")
    alice, bob = world.account("alice"), world.account("bob")
    hosts = [
        row_of(world, deployed(world, whose, cloud, name=name))["host_id"]
        for whose, name in ((alice, "one"), (alice, "two"), (bob, "three"), (bob, "four"))
    ]

    assert set(hosts[:2]) == set(hosts[2:]) == set(cloud.hosts)


def test_hosts_that_prefer_the_guests_system_are_taken_first(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        kind = tx.all(select(os_type).limit(1))[0]
        tx.execute(update(host).where(host.c.id == cloud.hosts[2]).values(os_category_id=kind["category_id"]))

    assert placed(world, demand(cloud, os_type_id=kind["id"])).host_id == cloud.hosts[2]
    assert placed(world, demand(cloud)).host_id == cloud.hosts[0]


def test_a_changed_factor_of_over_provisioning_counts_from_the_next_recount_on(world: World, cloud: Cloud) -> None:
    def totals() -> tuple[set[int], set[int]]:
        with world.db.read() as tx:
            cpu = tx.execute(select(host_capacity.c.cpu_total_mhz).where(host_capacity.c.host_id.in_(cloud.hosts)))
            return set(cpu.scalars()), set(tx.execute(select(storage_pool.c.allocatable_bytes)).scalars())

    with world.db.write() as tx:
        tx.execute(
            update(storage_pool).values(kind="NetworkFilesystem", capacity_bytes=100 * GIB, allocatable_bytes=200 * GIB)
        )
    world.reconcile("capacity")
    assert totals() == ({8000}, {200 * GIB})

    setting(world, keys.cpu_overprovisioning_factor, "1.5")
    setting(world, keys.storage_overprovisioning_factor, "3")
    world.reconcile("capacity")

    assert totals() == ({12000}, {300 * GIB})
    assert placed(world, demand(cloud, cpus=4, cpu_mhz=2000)).host_id == cloud.hosts[0]
    assert placed(world, demand(cloud, cpus=4, cpu_mhz=1000)).host_id == cloud.hosts[0]


def test_memory_is_never_over_provisioned(world: World, cloud: Cloud) -> None:
    setting(world, every["mem.overprovisioning.factor"], "2")
    world.reconcile("capacity")

    with world.db.write() as tx:
        assert place(tx, demand(cloud, ram_mib=4097)) is None
