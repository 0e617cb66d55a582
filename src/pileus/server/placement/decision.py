"""One decision: the host and pools for a demand, or why no host takes it. Nothing is claimed and nothing written.

The view decides. A refusal is believed when the database, asked in one query, knows just as many and the same hosts
with room as the view does; when it does not, the view looks again, and at last reads everything anew.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import structlog

from pileus.server.db.queries import placement as queries
from pileus.server.db.transaction import Tx
from pileus.server.placement import truth, view
from pileus.server.placement.allocators import Narrowing, PoolOrder, Wanted, host_order, pool_order
from pileus.server.placement.demand import Demand
from pileus.server.placement.facts import Cloud, HostFacts, PoolFacts
from pileus.server.placement.reasons import OF_KIND, Question, Reason, told
from pileus.server.placement.search import Search, search
from pileus.server.placement.storage import Storage

NAMED = 20
"""Hosts that a text names with their reasons; of more it tells how many have which kind of reason."""

LONGEST_TEXT = 4000
"""Characters of a text that lists hosts."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Refusal:
    """A host that does not take the demand."""

    host: HostFacts
    reason: Reason
    text: str


@dataclass(frozen=True)
class Decision:
    """`host` None: nobody takes it. `fitting` hosts have room, that one included.

    `refusals` are of as many hosts as were asked for, `counts` of all.
    """

    host: HostFacts | None
    pools: Mapping[int, PoolFacts] = field(default_factory=dict)
    counts: Mapping[Reason, int] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    fitting: int = 0

    def text(self, name: str) -> str:
        """A sentence with the reason of each host, those of the avoid-set included."""
        begin = f"no host has room for {name}: "
        if not self.counts:
            return begin + "the zone has no hosts"
        rest = Counter(self.counts)
        said: list[str] = []
        left = LONGEST_TEXT - len(begin) - len(_of_kinds(rest))
        for refusal in self.refusals[:NAMED]:
            words = f"{refusal.host.name}: {refusal.text}"
            if len(words) + 2 > left:
                break
            left -= len(words) + 2
            said.append(words)
            rest[refusal.reason] -= 1
        others = _of_kinds(rest)
        return begin + "; ".join([*said, others] if others else said)


@dataclass(frozen=True)
class Orders:
    """The allocators in force."""

    hosts: list[Narrowing]
    pools: PoolOrder

    @classmethod
    def of(cls, tx: Tx) -> "Orders":
        """As the settings say."""
        return cls(host_order(tx), pool_order(tx))


def decide(
    tx: Tx, demand: Demand, *, avoid: Mapping[str, str], seed: str, refusals: int = 0, all_refusals: bool = False
) -> Decision:
    """Choose. With `all_refusals`, hosts that were passed over are told when another one was found, too.

    `refusals` is how many hosts are told with their reasons, in the order of keys.
    """
    orders = Orders.of(tx)
    known = view.of(tx)
    for anew in (False, False, True):
        with known.cloud(tx, anew=anew) as cloud:
            question = Question(demand, avoid, seed)
            found = decided(tx, cloud, question, orders)
            decision = found.told(refusals if all_refusals or found.host is None else 0)
            seen = truth.Sum(0, 0) if found.host is not None else truth.seen(cloud, demand, avoid)
        if decision.host is not None or truth.there(tx, demand, avoid) == seen:
            return decision
        _log.warning("the view of hosts is not what the database says: looking again", zone=demand.zone_id)
    return decision


@dataclass
class Found:
    """A decision with what it was made of; valid while the cloud is not refreshed."""

    cloud: Cloud
    question: Question
    search: Search
    host: HostFacts | None
    laid: Mapping[int, int]

    def told(self, refusals: int) -> Decision:
        """The decision as values."""
        pools = {volume_id: self.cloud.pools[pool_id] for volume_id, pool_id in self.laid.items()}
        if not refusals:
            return Decision(self.host, pools)
        counts = self.search.counts()
        fitting = counts.pop(Reason.FITS, 0)
        named: list[Refusal] = []
        for host, reason in self.search.judged():
            if len(named) == refusals:
                break
            if reason is not Reason.FITS:
                named.append(Refusal(host, reason, told(reason, self.cloud, host, self.question)))
        return Decision(self.host, pools, counts, tuple(named), fitting)


def decided(tx: Tx, cloud: Cloud, question: Question, orders: Orders, *, few: int | None = None) -> Found:
    """Choose among the hosts of a cloud as it is known."""
    zone = cloud.zone(question.demand.zone_id)
    wanted = Wanted(
        question.demand,
        question.seed,
        cloud.category_of(question.demand),
        zone.last_turn,
        partial(zone.turns, cloud),
        partial(_guests_by_host, tx, question.demand),
    )
    if orders.pools.may_refuse:
        _ask_pools(cloud, question, orders.pools, wanted)
    looked = search(cloud, question, few=few)
    host = looked.best(wanted, orders.hosts)
    laid: Mapping[int, int] = {}
    if host is not None and question.demand.disks:
        laid = Storage(cloud, question).lay(host, partial(orders.pools.ranked, wanted)) or {}
    return Found(cloud, question, looked, host, laid)


def _ask_pools(cloud: Cloud, question: Question, order: PoolOrder, wanted: Wanted) -> None:
    for pool_id in cloud.zone(question.demand.zone_id).pools:
        pool = cloud.pools[pool_id]
        for disk in question.new_disks:
            said = order.refused(wanted, disk, pool)
            if said is not None:
                question.refused_pools[disk.volume_id, pool_id] = said


def _guests_by_host(tx: Tx, demand: Demand) -> Mapping[int, int]:
    return {} if demand.account_id is None else queries.guests_by_host(tx, demand.account_id)


def _of_kinds(counts: Mapping[Reason, int]) -> str:
    """How many hosts have which kind of reason, the most frequent first."""
    whole = sum(counts.values())
    if not whole:
        return ""
    told = sorted(((n, reason) for reason, n in counts.items() if n), reverse=True)
    return f"and {whole} more hosts of this zone, of which " + ", ".join(
        f"{n} {'each ' if n > 1 else ''}{OF_KIND[reason]}" for n, reason in told
    )
