"""Chooses a host and pools for a guest or router, and claims them: the guarded UPDATE decides, not the search.

Another server may claim what this one has chosen; then the next candidate is taken.
"""

from collections.abc import Mapping

import structlog

from pileus.server.db.queries import capacity
from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import InsufficientCapacity
from pileus.server.placement import view
from pileus.server.placement.decision import NAMED, Decision, decide
from pileus.server.placement.demand import Demand, Place

NOTHING: Mapping[str, str] = {}

MOST_LOST = 64
"""Candidates that may be lost to others before a search is given up."""

_HOST_LOST = "another guest took its room just now"
_POOL_LOST = "another volume took its room just now"

_log = structlog.get_logger(__name__)


def place(tx: Tx, demand: Demand, *, avoid: Mapping[str, str] = NOTHING, seed: str = "") -> Place | None:
    """Claim a host with room, and space for every disk; None when no host of the zone takes the demand.

    `avoid` is a job's avoid-set ("host:7", "pool:3" → reason). `seed` makes the choice of the random order.
    """
    return _placed(tx, demand, avoid, seed, refusals=0)[0]


def must_place(tx: Tx, demand: Demand, *, avoid: Mapping[str, str] = NOTHING, seed: str = "") -> Place:
    """As `place`, but raises `InsufficientCapacity` (533) with the reason of each host."""
    found, decision = _placed(tx, demand, avoid, seed, refusals=NAMED)
    if found is None:
        raise InsufficientCapacity(decision.text(demand.name))
    return found


def explain(tx: Tx, demand: Demand, *, refusals: int, seed: str = "") -> Decision:
    """Where the demand would go now, and why not elsewhere: `refusals` hosts are told, all are counted.

    Nothing is claimed, so that a unit of work that only reads is enough.
    """
    return decide(tx, demand, avoid=NOTHING, seed=seed, refusals=refusals, all_refusals=True)


def _placed(
    tx: Tx, demand: Demand, avoid: Mapping[str, str], seed: str, *, refusals: int
) -> tuple[Place | None, Decision]:
    lost: dict[str, str] = {}
    while True:
        decision = decide(tx, demand, avoid={**avoid, **lost}, seed=seed, refusals=refusals)
        if decision.host is None or len(lost) >= MOST_LOST:
            return None, decision
        gone = _claim(tx, demand, decision)
        if gone is None:
            host = decision.host
            view.of(tx).took(host.zone_id, host.id)
            pools = {volume_id: pool.id for volume_id, pool in decision.pools.items()}
            return Place(host.id, host.cluster_id, host.pod_id, pools), decision
        _log.info("a candidate was lost to another guest", candidate=gone, guest=demand.name)
        lost[gone] = _HOST_LOST if gone.startswith("host:") else _POOL_LOST


def _claim(tx: Tx, demand: Demand, decision: Decision) -> str | None:
    """Claim all of it, or nothing. Returns what was lost, as in an avoid-set; None when all was claimed."""
    host = decision.host
    if host is None:
        raise LookupError("nothing was decided for")
    claim = {"cpu_mhz": demand.claim_mhz, "ram_mib": demand.ram_mib}
    if not capacity.claim_host(tx, host.id, **claim):
        return f"host:{host.id}"
    claimed: list[tuple[int, int]] = []
    for disk in demand.disks:
        if disk.pool_id is not None:
            continue
        pool = decision.pools[disk.volume_id]
        if not capacity.claim_pool(tx, pool.id, disk.size_bytes):
            for pool_id, size_bytes in claimed:
                capacity.release_pool(tx, pool_id, size_bytes)
            capacity.release_host(tx, host.id, **claim)
            return f"pool:{pool.id}"
        claimed.append((pool.id, disk.size_bytes))
    return None
