"""Allocators: which of the hosts or pools with room comes first, and which a policy refuses. Guide: "Allocators".

They are found by entry points and asked in the order of a setting; each decides among those whom the ones before it
find equal, and of equals the oldest is taken. Other allocators than ours have a `key` only, and may refuse.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import structlog

from pileus.server.config import keys, value
from pileus.server.db.transaction import Tx
from pileus.server.placement.demand import Demand, DiskDemand
from pileus.server.placement.facts import HostFacts, PoolFacts

if TYPE_CHECKING:
    from pileus.server.placement.columns import Columns, Flags

HOSTS = "pileus.server.host_allocators"
POOLS = "pileus.server.storage_allocators"
ALGORITHM = "algorithm"
"""In the order of host allocators, the one that `vm.allocation.algorithm` names."""

_log = structlog.get_logger(__name__)


class Unfit(Exception):
    """An allocator refuses a host or a pool that has room; the text completes "host1: …" and is told to administrators.

    Any other exception of an allocator fails the placement: a policy that cannot be asked is not passed over.
    """


@dataclass(frozen=True)
class Wanted:
    """What is to be placed. `seed` differs from guest to guest and from round to round of one guest.

    `turns` gives the zone's hosts in the order of horizontal allocation, `last_turn` the one that was taken last.
    `guests_by_host` counts the account's guests. Both are found out when they are asked for.
    """

    demand: Demand
    seed: str
    os_category_id: int | None
    last_turn: int
    turns: Callable[[], Sequence[int]]
    guests_by_host: Callable[[], Mapping[int, int]]

    def drawn(self, below: int) -> int:
        """A number from 0 on that follows from the seed."""
        return int.from_bytes(blake2b(self.seed.encode(), digest_size=8).digest(), "big") % below


class HostAllocator(Protocol):
    """A policy for hosts. Entry points of the group `pileus.server.host_allocators` are called without arguments."""

    def key(self, wanted: Wanted, host: HostFacts) -> Any:
        """The host with the lowest key is taken first. Raises `Unfit`. Called in a transaction: never a slow thing."""
        ...


class StorageAllocator(Protocol):
    """A policy for pools. Entry points of the group `pileus.server.storage_allocators` are called without arguments."""

    def key(self, wanted: Wanted, disk: DiskDemand, pool: PoolFacts) -> Any:
        """The pool with the lowest key is taken first. Raises `Unfit`. Called in a transaction: never a slow thing."""
        ...


@runtime_checkable
class Narrowing(Protocol):
    """A preference that refuses nobody: leaves the best of a list, or of a zone in columns. Neither is empty."""

    def few(self, wanted: Wanted, hosts: list[HostFacts]) -> list[HostFacts]:
        """The best of a list in the order of keys."""
        ...

    def many(self, wanted: Wanted, columns: "Columns", fit: "Flags") -> "Flags":
        """The best of the rows that are flagged."""
        ...


class FirstFit:
    """Vertical: one host is filled before the next one."""

    def few(self, wanted: Wanted, hosts: list[HostFacts]) -> list[HostFacts]:
        return hosts[:1]

    def many(self, wanted: Wanted, columns: "Columns", fit: "Flags") -> "Flags":
        # Whoever asks takes the first that is flagged.
        return fit


class Random:
    """Any host, each as likely as the others; which one follows from the seed."""

    def few(self, wanted: Wanted, hosts: list[HostFacts]) -> list[HostFacts]:
        return [hosts[wanted.drawn(len(hosts))]]

    def many(self, wanted: Wanted, columns: "Columns", fit: "Flags") -> "Flags":
        rows = fit.nonzero()[0]
        return columns.only(int(rows[wanted.drawn(len(rows))]))


class Horizontal:
    """Hosts take turns: pods do, in each pod its clusters do. Each server of a farm has turns of its own."""

    def few(self, wanted: Wanted, hosts: list[HostFacts]) -> list[HostFacts]:
        turn = {host_id: position for position, host_id in enumerate(wanted.turns())}
        after = turn.get(wanted.last_turn, -1) + 1
        return [min(hosts, key=lambda host: (turn[host.id] - after) % len(turn))]

    def many(self, wanted: Wanted, columns: "Columns", fit: "Flags") -> "Flags":
        return columns.only(columns.next_turn(fit, wanted.turns(), wanted.last_turn))


class UserDispersing:
    """Hosts with the fewest guests of the account."""

    def few(self, wanted: Wanted, hosts: list[HostFacts]) -> list[HostFacts]:
        guests = wanted.guests_by_host()
        fewest = min(guests.get(host.id, 0) for host in hosts)
        return [host for host in hosts if guests.get(host.id, 0) == fewest]

    def many(self, wanted: Wanted, columns: "Columns", fit: "Flags") -> "Flags":
        return columns.fewest(fit, wanted.guests_by_host())


class OsPreference:
    """Hosts that prefer the guest's OS category, then hosts without a preference. Guide: "OS Preferences"."""

    def few(self, wanted: Wanted, hosts: list[HostFacts]) -> list[HostFacts]:
        for category in (wanted.os_category_id, None):
            found = [host for host in hosts if host.os_category_id == category]
            if found:
                return found
        return hosts

    def many(self, wanted: Wanted, columns: "Columns", fit: "Flags") -> "Flags":
        for category in (wanted.os_category_id or 0, 0):
            found: Flags = fit & columns.of_category(category)
            if columns.first(found) is not None:
                return found
        return fit


class ByKey:
    """An allocator that has only a `key`: whom it refuses is asked of all first."""

    def __init__(self, allocator: HostAllocator) -> None:
        self._allocator = allocator
        self._keys: dict[int, Any] = {}

    def refused(self, wanted: Wanted, hosts: list[HostFacts]) -> dict[int, str]:
        """Hosts that are refused, and why."""
        self._keys, found = {}, {}
        for host in hosts:
            try:
                self._keys[host.id] = self._allocator.key(wanted, host)
            except Unfit as unfit:
                found[host.id] = str(unfit)
        return found

    def few(self, wanted: Wanted, hosts: list[HostFacts]) -> list[HostFacts]:
        best = min(self._keys[host.id] for host in hosts)
        return [host for host in hosts if self._keys[host.id] == best]

    def many(self, wanted: Wanted, columns: "Columns", fit: "Flags") -> "Flags":
        best = self.few(wanted, [columns.hosts[row] for row in fit.nonzero()[0]])
        return columns.only(*(columns.row_of(host.id) for host in best))


class OldestPool:
    """Vertical: one pool is filled before the next one."""

    def key(self, wanted: Wanted, disk: DiskDemand, pool: PoolFacts) -> int:
        return pool.id


class RandomPool:
    """Any pool; which one follows from the seed."""

    def key(self, wanted: Wanted, disk: DiskDemand, pool: PoolFacts) -> bytes:
        return blake2b(f"{wanted.seed} {disk.volume_id} {pool.id}".encode(), digest_size=8).digest()


class FreestPool:
    """Horizontal: the pool with the most room."""

    def key(self, wanted: Wanted, disk: DiskDemand, pool: PoolFacts) -> int:
        return -pool.free_bytes


_NEVER_REFUSE = (OldestPool, RandomPool, FreestPool)


class PoolOrder:
    """The storage allocators in force."""

    def __init__(self, allocators: Sequence[StorageAllocator]) -> None:
        self._allocators = allocators

    @property
    def may_refuse(self) -> bool:
        """Whether pools have to be asked for before hosts are chosen."""
        return not all(isinstance(allocator, _NEVER_REFUSE) for allocator in self._allocators)

    def refused(self, wanted: Wanted, disk: DiskDemand, pool: PoolFacts) -> str | None:
        """Why the pool is refused for the disk."""
        try:
            self._key(wanted, disk, pool)
        except Unfit as unfit:
            return str(unfit)
        return None

    def ranked(self, wanted: Wanted, disk: DiskDemand, pools: Sequence[PoolFacts]) -> Sequence[PoolFacts]:
        """Pools, best first."""
        return sorted(pools, key=lambda pool: self._key(wanted, disk, pool)) if len(pools) > 1 else pools

    def _key(self, wanted: Wanted, disk: DiskDemand, pool: PoolFacts) -> tuple[Any, ...]:
        return (*(allocator.key(wanted, disk, pool) for allocator in self._allocators), pool.id)


def host_order(tx: Tx) -> list[Narrowing]:
    """The host allocators in force, in order. Names that nothing is installed for are logged and passed over."""
    named = names(value(tx, keys.host_allocators_order))
    algorithm = value(tx, keys.vm_allocation_algorithm)
    found = []
    for name in named:
        allocator = _loaded(HOSTS, algorithm if name == ALGORITHM else name)
        if allocator is not None:
            found.append(allocator if isinstance(allocator, Narrowing) else ByKey(allocator))
    return found


def pool_order(tx: Tx) -> PoolOrder:
    """The storage allocators in force."""
    found = (_loaded(POOLS, name) for name in names(value(tx, keys.storage_allocators_order)))
    return PoolOrder([allocator for allocator in found if allocator is not None])


def names(order: str) -> list[str]:
    """Names of a list that is separated by commas."""
    return [name.strip().lower() for name in order.split(",") if name.strip()]


@cache
def _loaded(group: str, name: str) -> Any:
    for entry in entry_points(group=group, name=name):
        try:
            return entry.load()()
        except ImportError as error:
            _log.error("allocator cannot be loaded", group=group, allocator=name, reason=str(error))
            return None
    _log.error("there is no such allocator", group=group, allocator=name)
    return None
