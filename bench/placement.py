"""Placement decisions per second among 10,000 and 50,000 hosts, with the reason of every host, and what a claim costs.

A decision chooses a host and pools, and finds a reason for each host that does not take the demand. The mixture: small
and large guests, with and without data disks, host and storage tags, OS preferences, avoid-sets; of ten demands, one
fits nowhere and is answered with the text that a failed deploy tells. Hosts are half full, some are down or disabled.
Each decision is followed by its claim in the view itself, so that the next one sees other numbers.

A claim is the whole unit of work of a step on SQLite in WAL mode with synchronous commits: refresh of the view, the
decision, guarded updates of host and pools, the log of changes, commit. Claims of "other servers" come in between.
Processor time of one thread. Last line: the whole, as one JSON object.
"""

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, insert, select

from pileus.server.db.queries import capacity
from pileus.server.db.tables.host import (
    host,
    host_capacity,
    host_tag,
    storage_pool,
    storage_pool_host,
    storage_pool_tag,
)
from pileus.server.db.tables.place import cluster, pod
from pileus.server.db.tables.template import os_type
from pileus.server.db.transaction import Database, Tx
from pileus.server.placement import view
from pileus.server.placement.decision import NAMED, Found, Orders, decided
from pileus.server.placement.demand import Demand, DiskDemand
from pileus.server.placement.facts import Cloud
from pileus.server.placement.place import place
from pileus.server.placement.reasons import Question
from pileus.testing.world import World

GOALS = {10_000: 5000, 50_000: 1000}
HOSTS_IN_CLUSTER, CLUSTERS_IN_POD, POOLS_IN_CLUSTER = 16, 8, 2
ROUNDS = 7
GIB = 1 << 30
CHUNK = 5000


def main() -> int:
    """Measure both sizes; the last line is the whole."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--hosts", type=int, nargs="*", default=sorted(GOALS))
    claims = []
    for size in arguments.parse_args().hosts:
        claims += measured(size)
    for claim in claims:
        print(json.dumps(claim))
    judged = [claim for claim in claims if claim["goal"] is not None]
    whole = dict(judged[-1], name="placement", ok=all(claim["ok"] for claim in judged))
    print(json.dumps(whole))
    return 0 if whole["ok"] else 1


def measured(size: int) -> list[dict[str, Any]]:
    """All claims of one size."""
    with World.open() as world:
        before = memory_mib()
        zone_id, os_types = filled(world, size)
        dice = random.Random(size)
        database = Database(f"sqlite:///{world.db.url.database}")
        with database.read() as tx:
            began = time.process_time()
            with view.of(tx).cloud(tx):
                pass
            loaded = time.process_time() - began
        decisions = [decisions_per_second(database, zone_id, os_types, dice, size) for _ in range(ROUNDS)]
        refusals = [refusals_per_second(database, zone_id) for _ in range(3)]
        claims, looks = claim_ms(database, zone_id, os_types, dice)
        database.dispose()
    prefix = f"placement_{size}"
    return [
        _claim(f"{prefix}_decisions", statistics.median(decisions), "1/s", GOALS.get(size)),
        _claim(f"{prefix}_refusals_with_text", statistics.median(refusals), "1/s"),
        _claim(f"{prefix}_decision_and_claim", claims, "ms"),
        _claim(f"{prefix}_refusal_and_question_to_database", looks, "ms"),
        _claim(f"{prefix}_load_of_view", loaded * 1000, "ms"),
        _claim(f"{prefix}_memory", memory_mib() - before, "MiB"),
    ]


def decisions_per_second(
    database: Database, zone_id: int, os_types: list[int], dice: random.Random, size: int
) -> float:
    """Decisions alone, in the view."""
    many = 1000 if size <= 10_000 else 300
    demands = [demand(zone_id, os_types, dice, n) for n in range(many)]
    with database.read() as tx, view.of(tx).cloud(tx) as cloud:
        orders = Orders.of(tx)
        hosts = cloud.zone(zone_id).hosts
        avoid = [
            {f"host:{i}": "it did not answer" for i in dice.sample(hosts, dice.choice((0, 0, 0, 2)))} for _ in demands
        ]
        decided(tx, cloud, Question(demands[0]), orders)  # The first one makes the columns.
        taken = 0.0
        for n, wanted in enumerate(demands):
            began = time.process_time()
            found = decided(tx, cloud, Question(wanted, avoid[n], str(n)), orders)
            text = found.told(NAMED).text(wanted.name) if found.host is None else ""
            taken += time.process_time() - began
            assert (found.host is None) == (n % 10 == 9) == text.startswith("no host has room")
            if found.host is not None:
                _take(cloud, wanted, found)
    # What was claimed in the view alone must not be believed by the next round.
    database.kept.clear()
    with database.read() as tx, view.of(tx).cloud(tx):
        pass
    return many / taken


def _take(cloud: Cloud, wanted: Demand, found: Found) -> None:
    """Claim it in the view."""
    chosen = found.host
    assert chosen is not None
    used = chosen.cpu_used_mhz + wanted.claim_mhz, chosen.ram_used_mib + wanted.ram_mib
    cloud.put_host(chosen._replace(cpu_used_mhz=used[0], ram_used_mib=used[1]))
    for disk in wanted.disks:
        pool = cloud.pools[found.laid[disk.volume_id]]
        cloud.put_pool(pool._replace(allocated_bytes=pool.allocated_bytes + disk.size_bytes))


def refusals_per_second(database: Database, zone_id: int) -> float:
    """Demands that fit nowhere: every host has a reason, twenty are told in words, all are counted."""
    wanted = Demand("web", zone_id, cpus=4, cpu_mhz=2000, ram_mib=1 << 20, disks=(DiskDemand(1, GIB),))
    with database.read() as tx, view.of(tx).cloud(tx) as cloud:
        orders = Orders.of(tx)
        began = time.process_time()
        for _ in range(100):
            found = decided(tx, cloud, Question(wanted), orders)
            assert found.host is None
            assert len(found.told(NAMED).text("web")) > 1000
        return 100 / (time.process_time() - began)


def claim_ms(database: Database, zone_id: int, os_types: list[int], dice: random.Random) -> tuple[float, float]:
    """Milliseconds of a whole unit of work that claims, and of one that is refused; other servers claim in between."""
    claiming, refusing = [], []
    for n in range(200):
        wanted = demand(zone_id, os_types, dice, n)
        with database.write() as tx:
            others = tx.execute(select(host.c.id).where(host.c.id > dice.randrange(1000)).limit(3)).scalars().all()
        for other in others:
            with database.write() as tx:
                capacity.claim_host(tx, other, cpu_mhz=1, ram_mib=1)
        began = time.process_time()
        with database.write() as tx:
            found = place(tx, wanted, seed=str(n))
        (refusing if found is None else claiming).append((time.process_time() - began) * 1000)
    return statistics.median(claiming), statistics.median(refusing)


def demand(zone_id: int, os_types: list[int], dice: random.Random, n: int) -> Demand:
    """The n-th demand of the mixture; every tenth fits nowhere."""
    kind = n % 10
    cpus, ram_mib = dice.choice(((1, 512), (1, 1024), (2, 2048), (4, 4096)))
    disks = [DiskDemand(1, dice.choice((2, 8, 20)) * GIB)]
    host_tag_wanted = None
    if kind in (2, 5):
        disks.append(DiskDemand(2, dice.choice((5, 20)) * GIB, frozenset({"ssd"}) if kind == 5 else frozenset()))
    if kind == 3:
        host_tag_wanted = "gpu"
    if kind == 9:
        impossible = (n // 10) % 4
        if impossible == 0:
            ram_mib = 1 << 20
        elif impossible == 1:
            host_tag_wanted = "quantum"
        elif impossible == 2:
            disks = [DiskDemand(1, 1 << 60)]
        else:
            cpus = 512
    return Demand(
        name="web",
        zone_id=zone_id,
        cpus=cpus,
        cpu_mhz=1000,
        ram_mib=ram_mib,
        hypervisor="Simulator",
        host_tag=host_tag_wanted,
        disks=tuple(disks),
        os_type_id=dice.choice(os_types) if kind in (0, 4, 6) else None,
        account_id=1,
    )


def filled(world: World, size: int) -> tuple[int, list[int]]:
    """A zone of many hosts, written directly; its key and some OS types."""
    dice = random.Random(7)
    zone_id = world.zone()
    clusters = -(-size // HOSTS_IN_CLUSTER)
    with world.db.write() as tx:
        kinds = [int(i) for i in tx.execute(select(os_type.c.id).limit(50)).scalars()]
        categories = sorted({int(i) for i in tx.execute(select(os_type.c.category_id)).scalars()})
        first_pod = _next(tx, pod)
        _insert(
            tx,
            pod,
            (
                {
                    "id": first_pod + n,
                    "uuid": f"pod-{n}",
                    "name": f"pod-{n}",
                    "zone_id": zone_id,
                    "gateway": "10.0.0.1",
                    "netmask": "255.0.0.0",
                    "start_ip": "10.0.0.2",
                    "end_ip": "10.0.0.2",
                    "created_at": 0,
                }
                for n in range(-(-clusters // CLUSTERS_IN_POD))
            ),
        )
        first_cluster = _next(tx, cluster)
        _insert(
            tx,
            cluster,
            (
                {
                    "id": first_cluster + n,
                    "uuid": f"cluster-{n}",
                    "name": f"cluster-{n}",
                    "zone_id": zone_id,
                    "pod_id": first_pod + n // CLUSTERS_IN_POD,
                    "hypervisor": "Simulator",
                    "created_at": 0,
                }
                for n in range(clusters)
            ),
        )
        first_pool = _next(tx, storage_pool)
        pools = range(clusters * POOLS_IN_CLUSTER)
        _insert(
            tx,
            storage_pool,
            (
                {
                    "id": first_pool + n,
                    "uuid": f"pool-{n}",
                    "name": f"pool-{n}",
                    "kind": "NetworkFilesystem",
                    "zone_id": zone_id,
                    "cluster_id": first_cluster + n // POOLS_IN_CLUSTER,
                    "path": f"/{n}",
                    "state": "Up",
                    "capacity_bytes": 4000 * GIB,
                    "allocatable_bytes": 8000 * GIB,
                    "allocated_bytes": dice.randrange(8000) * GIB,
                    "created_at": 0,
                }
                for n in pools
            ),
        )
        _insert(tx, storage_pool_tag, ({"pool_id": first_pool + n, "tag": "ssd"} for n in pools if n % 2))
        first = _next(tx, host)
        _insert(
            tx,
            host,
            (
                {
                    "id": first + n,
                    "uuid": f"host-{n}",
                    "name": f"host-{n}",
                    "kind": "Routing",
                    "state": "Down" if n % 97 == 5 else "Up",
                    "zone_id": zone_id,
                    "pod_id": first_pod + n // HOSTS_IN_CLUSTER // CLUSTERS_IN_POD,
                    "cluster_id": first_cluster + n // HOSTS_IN_CLUSTER,
                    "hypervisor": "Simulator",
                    "cpus": 32,
                    "cpu_mhz": 2400,
                    "memory_bytes": 128 * GIB,
                    "os_category_id": dice.choice(categories) if n % 20 == 0 else None,
                    "allocation_state": "Disabled" if n % 89 == 3 else "Enabled",
                    "created_at": 0,
                }
                for n in range(size)
            ),
        )
        _insert(
            tx,
            host_capacity,
            (
                {
                    "host_id": first + n,
                    "cpu_total_mhz": 32 * 2400,
                    "cpu_used_mhz": dice.randrange(32 * 2400),
                    "ram_total_mib": 128 * 1024,
                    "ram_used_mib": dice.randrange(128 * 1024),
                }
                for n in range(size)
            ),
        )
        _insert(tx, host_tag, ({"host_id": first + n, "tag": "gpu"} for n in range(size) if n % 50 == 7))
        _insert(
            tx,
            storage_pool_host,
            (
                {
                    "host_id": first + n,
                    "attached": 1,
                    "pool_id": first_pool + n // HOSTS_IN_CLUSTER * POOLS_IN_CLUSTER + slot,
                }
                for n in range(size)
                for slot in range(POOLS_IN_CLUSTER)
            ),
        )
    return zone_id, kinds


def _insert(tx: Tx, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    portion = []
    for row in rows:
        portion.append(row)
        if len(portion) == CHUNK:
            tx.execute(insert(table), portion)
            portion = []
    if portion:
        tx.execute(insert(table), portion)


def _next(tx: Tx, table: Any) -> int:
    return int(tx.scalar(select(func.coalesce(func.max(table.c.id), 0)))) + 1


def memory_mib() -> float:
    """The most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _claim(name: str, value: float, unit: str, goal: float | None = None) -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "ok": goal is None or value >= goal}


if __name__ == "__main__":
    sys.exit(main())
