"""Few hosts one by one, many in columns, and the plainest possible search say the same in every world."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pileus.server.placement.allocators import (
    ByKey,
    FirstFit,
    FreestPool,
    Horizontal,
    Narrowing,
    OldestPool,
    OsPreference,
    PoolOrder,
    Random,
    Unfit,
    UserDispersing,
    Wanted,
)
from pileus.server.placement.decision import NAMED, Found, Orders, decided
from pileus.server.placement.demand import Demand, DiskDemand
from pileus.server.placement.facts import Cloud, HostFacts, PoolFacts
from pileus.server.placement.reasons import OF_KIND, Question, Reason, told

ZONE = 1
GIB = 1 << 30
TAGS = ("gpu", "ssd", "big")

small = st.integers(0, 4)


def host_of(draw: Any, host_id: int) -> HostFacts:
    cluster_id = draw(st.integers(1, 4))
    return HostFacts(
        id=host_id,
        uuid=f"uuid-{host_id}",
        name=f"host-{host_id}",
        zone_id=ZONE,
        pod_id=(cluster_id + 1) // 2,
        cluster_id=cluster_id,
        hypervisor=draw(st.sampled_from(("KVM", "KVM", "KVM", "Simulator"))),
        state=draw(st.sampled_from(("Up", "Up", "Up", "Down", "Alert"))),
        allocation_state=draw(st.sampled_from(("Enabled", "Enabled", "Enabled", "Disabled"))),
        cpus=draw(st.integers(1, 4)),
        cpu_mhz=draw(st.sampled_from((1000, 2000))),
        os_category_id=draw(st.sampled_from((None, None, 1, 2))),
        cpu_total_mhz=draw(st.sampled_from((4000, 4000, 8000, None))),
        cpu_used_mhz=draw(st.integers(0, 5)) * 1000,
        ram_total_mib=4096,
        ram_used_mib=draw(st.integers(0, 4)) * 1024,
        tags=tuple(sorted(draw(st.sets(st.sampled_from(TAGS), max_size=2)))),
        pools=tuple(sorted(draw(st.sets(st.integers(1, 8), max_size=5)))),
    )


def pool_of(draw: Any, pool_id: int) -> PoolFacts:
    return PoolFacts(
        id=pool_id,
        uuid=f"pool-uuid-{pool_id}",
        name=f"pool-{pool_id}",
        zone_id=ZONE,
        cluster_id=draw(st.integers(1, 4)),
        state=draw(st.sampled_from(("Up", "Up", "Up", "Maintenance"))),
        allocatable_bytes=4 * GIB,
        allocated_bytes=draw(small) * GIB,
        tags=frozenset(draw(st.sets(st.sampled_from(TAGS), max_size=2))),
    )


@st.composite
def clouds(draw: Any) -> Cloud:
    cloud = Cloud(os_categories={10: 1, 20: 2})
    cloud.closed_pods = draw(st.sets(st.just(1)))
    cloud.closed_clusters = draw(st.sets(st.just(3)))
    for pool_id in range(1, draw(st.integers(0, 8)) + 1):
        cloud.put_pool(pool_of(draw, pool_id))
    for host_id in range(1, draw(st.integers(0, 12)) + 1):
        cloud.put_host(host_of(draw, host_id))
    return cloud


disks = st.builds(
    DiskDemand,
    volume_id=st.integers(1, 3),
    size_bytes=st.integers(1, 4).map(lambda n: n * GIB),
    tags=st.sets(st.sampled_from(TAGS), max_size=1).map(frozenset),
    pool_id=st.sampled_from((None, None, None, 1, 5)),
)

demands = st.builds(
    Demand,
    name=st.just("web"),
    zone_id=st.sampled_from((ZONE, ZONE, ZONE, ZONE, 2)),
    cpus=st.integers(1, 3),
    cpu_mhz=st.sampled_from((500, 1000, 2000)),
    ram_mib=st.sampled_from((512, 1024, 3000)),
    hypervisor=st.sampled_from((None, "KVM", "KVM")),
    host_tag=st.sampled_from((None, None, "gpu", "never")),
    pod_id=st.sampled_from((None, None, 1)),
    host_id=st.sampled_from((None, None, None, 3)),
    rather=st.sampled_from((None, None, 4)),
    disks=st.lists(disks, max_size=3, unique_by=lambda disk: disk.volume_id).map(tuple),
    any_allocation_state=st.booleans(),
    os_type_id=st.sampled_from((None, 10, 20, 30)),
)

avoids = st.dictionaries(st.sampled_from(("host:1", "host:3", "pool:2", "pool:5")), st.just("it was tried"), max_size=2)


def reference(cloud: Cloud, demand: Demand, avoid: dict[str, str]) -> list[int]:
    """Hosts with room, found in the plainest way."""
    found = []
    for host in sorted(cloud.hosts.values()):
        fine = (
            host.zone_id == demand.zone_id
            and f"host:{host.id}" not in avoid
            and demand.host_id in (None, host.id)
            and host.state == "Up"
            and demand.hypervisor in (None, host.hypervisor)
            and demand.pod_id in (None, host.pod_id)
            and (demand.host_tag is None or demand.host_tag in host.tags)
            and host.cpus >= demand.cpus
            and host.cpu_mhz >= demand.cpu_mhz
            and host.cpu_total_mhz is not None
            and host.cpu_used_mhz + demand.cpus * demand.cpu_mhz <= host.cpu_total_mhz
            and host.ram_used_mib + demand.ram_mib <= host.ram_total_mib
        )
        if not demand.any_allocation_state:
            fine = fine and host.allocation_state == "Enabled"
            fine = fine and host.pod_id not in cloud.closed_pods and host.cluster_id not in cloud.closed_clusters
        if fine and laid(cloud, host, demand, avoid):
            found.append(host.id)
    return found


def laid(cloud: Cloud, host: HostFacts, demand: Demand, avoid: dict[str, str]) -> bool:
    """Whether some way to lay all disks on the host's pools works."""
    pools = [pool for pool in cloud.pools.values() if pool.id in host.pools and pool.cluster_id == host.cluster_id]
    return any(
        sound(dict(zip(demand.disks, way, strict=True)), avoid) for way in product(pools, repeat=len(demand.disks))
    )


def sound(way: dict[DiskDemand, PoolFacts], avoid: dict[str, str]) -> bool:
    new: dict[int, int] = {}
    for disk, pool in way.items():
        if pool.state != "Up" or (disk.pool_id is not None and disk.pool_id != pool.id):
            return False
        if disk.pool_id is None:
            if f"pool:{pool.id}" in avoid or not disk.tags <= pool.tags:
                return False
            new[pool.id] = new.get(pool.id, 0) + disk.size_bytes
            if pool.allocated_bytes + new[pool.id] > pool.allocatable_bytes:
                return False
    return True


def both(
    cloud: Cloud, demand: Demand, avoid: dict[str, str], hosts: list[Narrowing], pools: PoolOrder | None = None
) -> Found:
    """The decision, the same whether hosts are looked at one by one or in columns."""
    orders = Orders(hosts, pools or PoolOrder([OldestPool()]))
    few, many = (
        decided(None, cloud, Question(demand, avoid, "seed"), orders, few=limit)  # type: ignore[arg-type]
        for limit in (1000, -1)
    )
    assert list(few.search.judged()) == list(many.search.judged())
    assert (few.host, few.laid) == (many.host, many.laid)
    assert few.told(9) == many.told(9)
    return many


@settings(max_examples=120, deadline=None)
@given(clouds(), demands, avoids)
def test_hosts_with_room_are_those_of_the_plainest_search_and_each_other_one_has_a_reason(
    cloud: Cloud, demand: Demand, avoid: dict[str, str]
) -> None:
    found = both(cloud, demand, avoid, [FirstFit()])

    expected = reference(cloud, demand, avoid)
    judged = list(found.search.judged())
    assert [host.id for host, reason in judged if reason is Reason.FITS] == expected
    assert len(judged) == len(cloud.zone(demand.zone_id).hosts)
    if expected:
        assert found.host is not None
        assert found.host.id == (demand.rather if demand.rather in expected else expected[0])
        way = {disk: cloud.pools[found.laid[disk.volume_id]] for disk in demand.disks}
        assert sound(way, avoid)
    else:
        assert found.host is None
        question = Question(demand, avoid)
        assert all(told(reason, cloud, host, question) for host, reason in judged)


@settings(max_examples=50, deadline=None)
@given(clouds(), st.data())
def test_columns_follow_what_happens_to_hosts_and_pools(cloud: Cloud, data: Any) -> None:
    both(cloud, data.draw(demands), {}, [FirstFit()])
    for _ in range(data.draw(st.integers(1, 6))):
        happens(cloud, data)
        demand, avoid = data.draw(demands), data.draw(avoids)
        found = both(cloud, demand, avoid, [FirstFit()])
        fitting = [host.id for host, reason in found.search.judged() if reason is Reason.FITS]
        assert fitting == reference(cloud, demand, avoid)


def happens(cloud: Cloud, data: Any) -> None:
    """A claim, a release, another state, another pool, a host or pool that comes or goes."""
    what = data.draw(st.sampled_from(("host", "pool", "pod", "cluster", "come", "go", "pool goes")))
    host_id, pool_id = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 9))
    match what:
        case "host" | "come":
            cloud.put_host(host_of(data.draw, host_id))
        case "pool":
            old = cloud.pools.get(pool_id)
            new = pool_of(data.draw, pool_id)
            cloud.put_pool(new if old is None else new._replace(cluster_id=old.cluster_id))
        case "pod":
            cloud.open_or_close(cloud.closed_pods, 1, closed=data.draw(st.booleans()))
        case "cluster":
            cloud.open_or_close(cloud.closed_clusters, 3, closed=data.draw(st.booleans()))
        case "go":
            cloud.drop_host(host_id)
        case "pool goes":
            cloud.drop_pool(pool_id)


@settings(max_examples=60, deadline=None)
@given(
    clouds(),
    demands,
    st.lists(st.sampled_from((OsPreference(), Horizontal(), Random(), FirstFit(), UserDispersing())), max_size=3),
    st.integers(0, 12),
)
def test_allocators_choose_the_same_among_few_and_among_many(
    cloud: Cloud, demand: Demand, order: list[Narrowing], last: int
) -> None:
    cloud.zone(demand.zone_id).last_turn = last
    found = both(cloud, demand, {}, order, PoolOrder([FreestPool()]))

    assert (found.host is None) == (reference(cloud, demand, {}) == [])


class Odd:
    """A policy of somebody else: hosts with odd keys are refused, of the others the last one is best."""

    def key(self, wanted: Wanted, host: HostFacts) -> int:
        if host.id % 2:
            raise Unfit("its number is odd")
        return -host.id


class Thrifty:
    """A policy of somebody else for pools."""

    def key(self, wanted: Wanted, disk: DiskDemand, pool: PoolFacts) -> int:
        if pool.id == 2:
            raise Unfit("it is kept for later")
        return -pool.id


@settings(max_examples=50, deadline=None)
@given(clouds(), demands)
def test_an_allocator_of_somebody_else_orders_and_refuses(cloud: Cloud, demand: Demand) -> None:
    found = both(cloud, demand, {}, [OsPreference(), ByKey(Odd())], PoolOrder([Thrifty()]))

    kept = replace(demand, disks=tuple(disk for disk in demand.disks if disk.pool_id is None))
    assert all(found.laid[disk.volume_id] != 2 for disk in kept.disks if found.host is not None)
    if found.host is not None:
        assert found.host.id % 2 == 0
    for host, reason in found.search.judged():
        if reason is Reason.ALLOCATOR:
            assert host.id % 2
            assert told(reason, cloud, host, found.question) == "its number is odd"


def world(*hosts: HostFacts) -> Cloud:
    cloud = Cloud(os_categories={10: 1, 20: 2})
    for host in hosts:
        cloud.put_host(host)
    return cloud


def plain(host_id: int, **values: Any) -> HostFacts:
    given_values = {
        "uuid": f"u{host_id}", "name": f"host-{host_id}", "zone_id": ZONE, "pod_id": 1, "cluster_id": 1,
        "hypervisor": "KVM", "state": "Up", "allocation_state": "Enabled", "cpus": 4, "cpu_mhz": 2000,
        "os_category_id": None, "cpu_total_mhz": 8000, "cpu_used_mhz": 0, "ram_total_mib": 4096, "ram_used_mib": 0,
    }  # fmt: skip
    return HostFacts(id=host_id, **{**given_values, **values})


SMALL = Demand("web", ZONE, cpus=1, cpu_mhz=500, ram_mib=512)


def test_hosts_that_prefer_the_guests_system_come_first_and_those_of_another_system_last() -> None:
    cloud = world(plain(1, os_category_id=2), plain(2), plain(3, os_category_id=1))

    def chosen(**wishes: Any) -> list[int]:
        found, avoid = [], {}
        while (host := both(cloud, replace(SMALL, **wishes), avoid, [OsPreference(), FirstFit()]).host) is not None:
            found.append(host.id)
            avoid[f"host:{host.id}"] = "seen"
        return found

    assert chosen(os_type_id=10) == [3, 2, 1]
    assert chosen(os_type_id=20) == [1, 2, 3]
    assert chosen() == [2, 1, 3]


def test_rooms_and_demands_beyond_what_hosts_have_are_compared_all_the_same() -> None:
    cloud = world(plain(1, ram_used_mib=1 << 40), plain(2, cpu_total_mhz=1 << 30, ram_total_mib=(1 << 31) - 2))
    for ram_mib, chosen in ((512, 2), ((1 << 31) - 2, 2), (1 << 40, None)):
        host = both(cloud, replace(SMALL, ram_mib=ram_mib), {}, [FirstFit()]).host
        assert (None if host is None else host.id) == chosen


def test_in_horizontal_allocation_pods_take_turns_and_in_each_its_clusters() -> None:
    place = {1: (1, 1), 2: (1, 1), 3: (1, 2), 4: (2, 3), 5: (2, 3)}
    cloud = world(*(plain(i, pod_id=pod, cluster_id=cluster) for i, (pod, cluster) in place.items()))
    seen = []
    for _ in range(7):
        host = both(cloud, SMALL, {}, [Horizontal()]).host
        assert host is not None
        cloud.zone(ZONE).last_turn = host.id
        seen.append(host.id)

    assert seen == [1, 4, 3, 5, 2, 1, 4]


def test_a_full_host_loses_its_turn_and_nobody_elses() -> None:
    cloud = world(plain(1), plain(2, ram_used_mib=4096), plain(3))
    cloud.zone(ZONE).last_turn = 1

    host = both(cloud, SMALL, {}, [Horizontal()]).host

    assert host is not None
    assert host.id == 3


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason is not Reason.FITS])
def test_every_reason_has_words_for_many_hosts(reason: Reason) -> None:
    assert OF_KIND[reason]


def test_a_text_names_some_hosts_counts_the_others_and_stays_short() -> None:
    cloud = world(*(plain(i, state="Down" if i % 2 else "Up") for i in range(1, 301)))
    found = both(cloud, replace(SMALL, ram_mib=9000), {}, [FirstFit()])

    text = found.told(NAMED).text("web")

    assert text.startswith("no host has room for web: host-1: it is Down; host-2: not enough memory (4096 of 4096 MiB")
    assert text.endswith(
        "and 280 more hosts of this zone, of which 140 each is not up, 140 each has not enough memory free"
    )
    assert len(text) <= 4000
