"""Where guests are placed: which hosts are candidates, in which order, what is claimed, and what is said on failure."""

from typing import Any

import pytest
from sqlalchemy import event, insert, select, update

from pileus.server.config import change, keys
from pileus.server.db.tables.host import (
    host,
    host_capacity,
    host_tag,
    storage_pool,
    storage_pool_host,
    storage_pool_tag,
)
from pileus.server.db.tables.place import cluster, pod
from pileus.server.domain.errors import InsufficientCapacity
from pileus.server.placement.demand import Demand, DiskDemand, Place
from pileus.server.placement.place import must_place, place
from pileus.testing import World
from pileus.testing.builders import GIB, Cloud


@pytest.fixture
def cloud(world: World) -> Cloud:
    made = world.cloud(hosts=3, cpus=4, memory=4 * GIB)
    order(world, "firstfit")
    return made


def order(world: World, algorithm: str) -> None:
    with world.db.write() as tx:
        change(tx, keys.vm_allocation_algorithm, algorithm, user_id=1)


def demand(cloud: Cloud, **wishes: Any) -> Demand:
    return Demand(**{"name": "web", "zone_id": cloud.zone, "cpus": 1, "cpu_mhz": 1000, "ram_mib": 1024, **wishes})


def disk(size: int = GIB, **wishes: Any) -> DiskDemand:
    return DiskDemand(**{"volume_id": 1, "size_bytes": size, **wishes})


def placed(world: World, wanted: Demand, *, avoid: dict[str, str] | None = None, seed: str = "") -> Place | None:
    with world.db.write() as tx:
        return place(tx, wanted, avoid=avoid or {}, seed=seed)


def refused(world: World, wanted: Demand, avoid: dict[str, str] | None = None) -> str:
    with pytest.raises(InsufficientCapacity) as error, world.db.write() as tx:
        must_place(tx, wanted, avoid=avoid or {})
    return error.value.text


def used(world: World, host_id: int) -> tuple[int, int]:
    with world.db.read() as tx:
        row = tx.one(select(host_capacity).where(host_capacity.c.host_id == host_id))
    assert row is not None
    return row["cpu_used_mhz"], row["ram_used_mib"]


def names(world: World, cloud: Cloud) -> list[str]:
    with world.db.read() as tx:
        return list(tx.execute(select(host.c.name).where(host.c.id.in_(cloud.hosts)).order_by(host.c.id)).scalars())


def test_first_fit_fills_one_host_before_the_next(world: World, cloud: Cloud) -> None:
    chosen = [placed(world, demand(cloud, ram_mib=2048)) for _ in range(6)]

    assert [found.host_id for found in chosen if found] == [h for h in cloud.hosts for _ in range(2)]
    assert placed(world, demand(cloud, ram_mib=2048)) is None


def test_a_claim_holds_cpu_over_all_cores_and_memory(world: World, cloud: Cloud) -> None:
    found = placed(world, demand(cloud, cpus=2, cpu_mhz=500, ram_mib=700))

    assert found is not None
    assert used(world, found.host_id) == (1000, 700)


def test_random_order_follows_the_seed_and_reaches_every_host(world: World, cloud: Cloud) -> None:
    order(world, "random")

    def chosen(seed: str) -> int:
        with world.db.write() as tx:
            found = place(tx, demand(cloud, cpu_mhz=1, ram_mib=1), seed=seed)
        assert found is not None
        return found.host_id

    assert {chosen(str(n)) for n in range(40)} == set(cloud.hosts)
    assert chosen("again") == chosen("again")


def test_random_order_goes_round_to_hosts_before_its_start(world: World, cloud: Cloud) -> None:
    order(world, "random")
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id.in_(cloud.hosts[1:])).values(state="Down"))

    for seed in map(str, range(10)):
        found = placed(world, demand(cloud, cpu_mhz=1, ram_mib=1), seed=seed)
        assert found is not None
        assert found.host_id == cloud.hosts[0]


def test_the_preferred_host_is_taken_while_it_has_room(world: World, cloud: Cloud) -> None:
    wanted = demand(cloud, rather=cloud.hosts[2], ram_mib=3000)

    first, second = placed(world, wanted), placed(world, wanted)

    assert first is not None
    assert second is not None
    assert (first.host_id, second.host_id) == (cloud.hosts[2], cloud.hosts[0])


def test_hosts_of_the_avoid_set_are_never_chosen(world: World, cloud: Cloud) -> None:
    avoid = {f"host:{host_id}": "it did not answer" for host_id in cloud.hosts[:2]}

    found = placed(world, demand(cloud), avoid=avoid)

    assert found is not None
    assert found.host_id == cloud.hosts[2]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"state": "Down"}, "it is Down"),
        ({"allocation_state": "Disabled"}, "it is disabled for new guests"),
        ({"hypervisor": "KVM"}, "its hypervisor is KVM, not Simulator"),
        ({"cpus": 0}, "it has 0 CPUs, 1 are needed"),
        ({"cpu_mhz": 900}, "its CPUs have 900 MHz, 1000 are needed"),
    ],
)
def test_a_host_that_cannot_take_it_is_passed_over_and_named(
    world: World, cloud: Cloud, values: dict[str, Any], reason: str
) -> None:
    wanted = demand(cloud, hypervisor="Simulator")
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == cloud.hosts[0]).values(**values))
    found = placed(world, wanted)
    assert found is not None
    assert found.host_id == cloud.hosts[1]
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id.in_(cloud.hosts)).values(**values))

    text = refused(world, wanted)

    assert all(f"{name}: {reason}" in text for name in names(world, cloud))


def test_a_lack_of_room_is_told_with_what_is_free(world: World, cloud: Cloud) -> None:
    placed(world, demand(cloud, ram_mib=1000))
    first = names(world, cloud)[0]

    assert f"{first}: not enough memory (3096 of 4096 MiB free, 5000 needed)" in refused(
        world, demand(cloud, ram_mib=5000)
    )
    assert f"{first}: not enough CPU (7000 of 8000 MHz free, 8000 needed)" in refused(
        world, demand(cloud, cpus=4, cpu_mhz=2000, host_id=cloud.hosts[0])
    )


def test_each_host_that_was_tried_is_told_with_the_reason_it_gave(world: World, cloud: Cloud) -> None:
    avoid = {f"host:{host_id}": f"no bridge {host_id}" for host_id in cloud.hosts}

    text = refused(world, demand(cloud), avoid)

    for name, host_id in zip(names(world, cloud), cloud.hosts, strict=True):
        assert f"{name}: no bridge {host_id}" in text


@pytest.mark.parametrize(("table", "what"), [(pod, "its pod"), (cluster, "its cluster")])
def test_a_disabled_pod_or_cluster_takes_guests_of_root_administrators_only(
    world: World, cloud: Cloud, table: Any, what: str
) -> None:
    with world.db.write() as tx:
        tx.execute(update(table).values(allocation_state="Disabled"))

    assert f"{what} is disabled for new guests" in refused(world, demand(cloud))
    assert placed(world, demand(cloud, any_allocation_state=True)) is not None


def test_a_host_tag_of_the_offering_must_be_on_the_host(world: World, cloud: Cloud) -> None:
    wanted = demand(cloud, host_tag="gpu")
    assert "it has no tag gpu" in refused(world, wanted)
    with world.db.write() as tx:
        tx.execute(insert(host_tag).values(host_id=cloud.hosts[1], tag="gpu"))

    found = placed(world, wanted)

    assert found is not None
    assert found.host_id == cloud.hosts[1]


def test_disks_claim_space_of_a_pool_that_the_host_uses(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(storage_pool_host).where(storage_pool_host.c.host_id != cloud.hosts[1]).values(attached=0))

    found = placed(world, demand(cloud, disks=(disk(2 * GIB),)))

    assert found is not None
    assert (found.host_id, found.pools) == (cloud.hosts[1], {1: cloud.pool})
    with world.db.read() as tx:
        assert tx.scalar(select(storage_pool.c.allocated_bytes)) == 2 * GIB


def test_lack_of_storage_is_told_and_takes_no_room_of_any_host(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(storage_pool).values(allocatable_bytes=3 * GIB))

    assert "has 3.0 GiB free, 4.0 needed" in refused(world, demand(cloud, disks=(disk(4 * GIB),)))
    both = (disk(2 * GIB), disk(2 * GIB, volume_id=2))
    assert "its storage has no room for 4.0 GiB in all" in refused(world, demand(cloud, disks=both))
    with world.db.read() as tx:
        assert tx.scalar(select(storage_pool.c.allocated_bytes)) == 0
    assert [used(world, host_id) for host_id in cloud.hosts] == [(0, 0)] * 3


def test_storage_tags_choose_the_pool(world: World, cloud: Cloud) -> None:
    wanted = demand(cloud, disks=(disk(tags=frozenset({"ssd"})),))
    assert "lacks tags ssd" in refused(world, wanted)
    fast = world.pool(cloud.cluster)
    with world.db.write() as tx:
        tx.execute(insert(storage_pool_tag).values(pool_id=fast, tag="ssd"))

    found = placed(world, wanted)

    assert found is not None
    assert found.pools == {1: fast}


def test_a_pool_of_the_avoid_set_is_left_out_and_told(world: World, cloud: Cloud) -> None:
    wanted, avoid = demand(cloud, disks=(disk(),)), {f"pool:{cloud.pool}": "the disk is full"}

    assert "the disk is full" in refused(world, wanted, avoid)
    other = world.pool(cloud.cluster)
    found = placed(world, wanted, avoid=avoid)

    assert found is not None
    assert found.pools == {1: other}


def test_a_disk_that_lies_on_a_pool_is_followed_and_claims_nothing(world: World, cloud: Cloud) -> None:
    near = world.cluster(cloud.pod)
    there = world.host(near)
    pool_id = world.pool(near)

    found = placed(world, demand(cloud, disks=(disk(GIB, pool_id=pool_id),)))

    assert found is not None
    assert (found.host_id, found.pools) == (there, {1: pool_id})
    with world.db.read() as tx:
        assert tx.scalar(select(storage_pool.c.allocated_bytes).where(storage_pool.c.id == pool_id)) == 0


def test_a_zone_without_hosts_says_so(world: World) -> None:
    text = refused(world, Demand(name="web", zone_id=world.zone(), cpus=1, cpu_mhz=1, ram_mib=1))

    assert "the zone has no hosts" in text


def test_a_placement_reads_no_more_in_a_larger_cloud(world: World, cloud: Cloud) -> None:
    def statements() -> int:
        seen: list[str] = []

        def count(*arguments: Any) -> None:
            seen.append(arguments[2])

        event.listen(world.db.writing, "before_cursor_execute", count)
        try:
            assert placed(world, demand(cloud, cpu_mhz=1, ram_mib=1, disks=(disk(),))) is not None
        finally:
            event.remove(world.db.writing, "before_cursor_execute", count)
        return len(seen)

    statements()  # The first one fills the cache of settings.
    before = statements()
    for _ in range(20):
        world.host(cloud.cluster)
    statements()  # The next one hears of the new hosts.

    assert statements() == before
