"""Chooses a host and pools for a guest or router, and claims them: the guarded UPDATE decides, not the search."""

from collections.abc import Mapping

from sqlalchemy import RowMapping

from pileus.server.config import keys, value
from pileus.server.db.queries import capacity
from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import InsufficientCapacity
from pileus.server.placement.candidates import Order, hosts, pools
from pileus.server.placement.demand import Demand, Place
from pileus.server.placement.reasons import explain

NOTHING: Mapping[str, str] = {}


def place(tx: Tx, demand: Demand, *, avoid: Mapping[str, str] = NOTHING, seed: str = "") -> Place | None:
    """Claim a host with room, and space for every disk; None when no host of the zone takes the demand.

    `avoid` is a job's avoid-set ("host:7", "pool:3" → reason). `seed` makes the choice of the random order.
    """
    avoid_hosts, avoid_pools = _keys(avoid, "host:"), _keys(avoid, "pool:")
    order = Order.RANDOM if value(tx, keys.vm_allocation_algorithm) == Order.RANDOM else Order.FIRSTFIT
    found = hosts(tx, demand, avoid_hosts=avoid_hosts, avoid_pools=avoid_pools, order=order, seed=seed)
    for candidate in found:
        claimed = _claim(tx, candidate, demand, avoid_pools)
        if claimed is not None:
            return claimed
    return None


def must_place(tx: Tx, demand: Demand, *, avoid: Mapping[str, str] = NOTHING, seed: str = "") -> Place:
    """As `place`, but raises `InsufficientCapacity` (533) with the reason of each host."""
    found = place(tx, demand, avoid=avoid, seed=seed)
    if found is None:
        raise InsufficientCapacity(explain(tx, demand, avoid=avoid))
    return found


def _claim(tx: Tx, candidate: RowMapping, demand: Demand, avoid_pools: frozenset[int]) -> Place | None:
    host_id = int(candidate["id"])
    if not capacity.claim_host(tx, host_id, cpu_mhz=demand.claim_mhz, ram_mib=demand.ram_mib):
        return None
    chosen = _claim_pools(tx, candidate, demand, avoid_pools)
    if chosen is None:
        capacity.release_host(tx, host_id, cpu_mhz=demand.claim_mhz, ram_mib=demand.ram_mib)
        return None
    return Place(host_id, int(candidate["cluster_id"]), int(candidate["pod_id"]), chosen)


def _claim_pools(tx: Tx, candidate: RowMapping, demand: Demand, avoid_pools: frozenset[int]) -> dict[int, int] | None:
    chosen: dict[int, int] = {}
    claimed: list[tuple[int, int]] = []
    for disk in demand.disks:
        if disk.pool_id is not None:
            chosen[disk.volume_id] = disk.pool_id
            continue
        for pool_id in pools(tx, candidate, disk, avoid=avoid_pools):
            if capacity.claim_pool(tx, pool_id, disk.size_bytes):
                chosen[disk.volume_id] = pool_id
                claimed.append((pool_id, disk.size_bytes))
                break
        else:
            for pool_id, size_bytes in claimed:
                capacity.release_pool(tx, pool_id, size_bytes)
            return None
    return chosen


def _keys(avoid: Mapping[str, str], prefix: str) -> frozenset[int]:
    return frozenset(int(key.removeprefix(prefix)) for key in avoid if key.startswith(prefix))
