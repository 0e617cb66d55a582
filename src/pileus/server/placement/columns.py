"""A zone of many hosts in columns of numbers, so that all its hosts are judged at once.

Needs numpy, which is loaded here and nowhere else: whoever has few hosts never pays for it. Rows are in the order of
keys. What changes is written into its row; what comes or goes makes the columns anew.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from pileus.server.domain.storage import PoolState
from pileus.server.placement.demand import DiskDemand
from pileus.server.placement.facts import Cloud, HostFacts, PoolFacts, Zone
from pileus.server.placement.reasons import REASONS, Question, Reason, of_host, standing_of
from pileus.server.placement.storage import Group, Storage

Flags = NDArray[np.bool_]
Codes = NDArray[np.uint8]


_NUMBER = {reason: np.uint8(reason) for reason in Reason}

_NO_ROOM = -(2**62)

_MOST = 2**31 - 1
"""MHz and MiB that are more than any host has: two PiB. Who asks for so much finds no host."""


class Columns:
    """The hosts of a zone, a row each, and its pools."""

    def __init__(self, cloud: Cloud, zone: Zone) -> None:
        self._cloud = cloud
        self.hosts = [cloud.hosts[host_id] for host_id in zone.hosts]
        size = len(self.hosts)
        self._row = {host.id: row for row, host in enumerate(self.hosts)}
        self._names: dict[str, int] = {}
        self._standing = np.zeros(size, np.uint8)
        self._standing_for_all = np.zeros(size, np.uint8)
        self._hypervisor = np.zeros(size, np.int16)
        self._pod = np.zeros(size, np.int64)
        self._cpus = np.zeros(size, np.int32)
        self._cpu_mhz = np.zeros(size, np.int32)
        self._least_cpus = self._least_cpu_mhz = sys.maxsize
        """No host has less, or ever had."""
        self._free_mhz = np.zeros(size, np.int32)
        self._free_mib = np.zeros(size, np.int32)
        self._low: Flags = np.zeros(size, np.bool_)
        self._said: Codes = np.zeros(size, np.uint8)
        """Room for what is worked out, so that no decision asks the system for memory."""
        self._category = np.zeros(size, np.int64)
        self._of_category: dict[int, Flags] = {}
        self._group = np.zeros(size, np.intp)
        self._groups: list[Group] = []
        self._group_of: dict[Group, int] = {}
        self._tagged: dict[str, Flags] = {}
        self._turns: NDArray[np.intp] | None = None
        self._turn = np.zeros(0, np.intp)
        self._pools = _Pools(cloud, zone)
        for row, host in enumerate(self.hosts):
            self._write(row, host)

    def host_changed(self, cloud: Cloud, host: HostFacts) -> None:
        """Write a host anew."""
        row = self._row[host.id]
        if self.hosts[row].tags != host.tags:
            self._tagged.clear()
        if self.hosts[row].os_category_id != host.os_category_id:
            self._of_category.clear()
        self.hosts[row] = host
        self._write(row, host)

    def pool_changed(self, pool: PoolFacts) -> None:
        """Write a pool anew."""
        self._pools.changed(pool)

    def row_of(self, host_id: int) -> int:
        """The row of a host of the zone."""
        return self._row[host_id]

    def counted(self, codes: Codes) -> Counter[Reason]:
        """How many hosts have each reason."""
        return Counter({REASONS[code]: int(n) for code, n in enumerate(np.bincount(codes)) if n})

    @staticmethod
    def first(flags: Flags) -> int | None:
        """The first flagged row, None without any: a fourth of the time of `any`."""
        if not len(flags):
            return None
        row = int(flags.argmax())
        return row if flags[row] else None

    def holds(self, host_id: int, flags: Flags) -> bool:
        """Whether the host is of this zone, and flagged."""
        row = self._row.get(host_id)
        return row is not None and bool(flags[row])

    def of_category(self, category: int) -> Flags:
        """Hosts that prefer an OS category, or none (0)."""
        found = self._of_category.get(category)
        if found is None:
            found = self._of_category[category] = self._category == category
        return found

    def only(self, *rows: int) -> Flags:
        """These rows flagged."""
        found = np.zeros(len(self.hosts), np.bool_)
        for row in rows:
            found[row] = True
        return found

    def next_turn(self, fit: Flags, turns: Sequence[int], last: int) -> int:
        """The row of the next flagged host behind `last`, in the order of turns."""
        if self._turns is None:
            self._turns = np.fromiter((self._row[host_id] for host_id in turns), np.intp, len(turns))
            self._turn = np.empty(len(turns), np.intp)
            self._turn[self._turns] = np.arange(len(turns))
        row = self._row.get(last)
        after = 0 if row is None else int(self._turn[row]) + 1
        in_order = fit.take(self._turns)
        for begin in (after, 0):
            ahead = in_order[begin:]
            if (place := self.first(ahead)) is not None:
                return int(self._turns[begin + place])
        raise LookupError("no host is flagged")

    def fewest(self, fit: Flags, guests: Mapping[int, int]) -> Flags:
        """The flagged hosts with the fewest guests."""
        rows = {self._row[host_id]: n for host_id, n in guests.items() if host_id in self._row}
        without = fit.copy()
        without[np.fromiter(rows, np.intp, len(rows))] = False
        if self.first(without) is not None:
            return without
        least = min(n for row, n in rows.items() if fit[row])
        return self.only(*(row for row, n in rows.items() if n == least and fit[row]))

    def codes(self, question: Question) -> Codes:
        """The reason of each host, by row."""
        demand = question.demand
        if demand.host_id is not None:
            return self._of_one(question, demand.host_id)
        codes = (self._standing_for_all if demand.any_allocation_state else self._standing).copy()
        if demand.hypervisor is not None and self._names.keys() != {demand.hypervisor}:
            _say(codes, self._hypervisor != self._number(demand.hypervisor), Reason.HYPERVISOR)
        if demand.pod_id is not None:
            _say(codes, self._pod != demand.pod_id, Reason.POD)
        if demand.host_tag is not None:
            _say(codes, self._without(demand.host_tag), Reason.TAG)
        # Nearly always every host has CPUs enough: no need to ask each.
        if demand.cpus > self._least_cpus:
            _say(codes, self._cpus < demand.cpus, Reason.CPUS)
        if demand.cpu_mhz > self._least_cpu_mhz:
            _say(codes, self._cpu_mhz < demand.cpu_mhz, Reason.CPU_SPEED)
        for free, needed, reason in (
            (self._free_mhz, demand.claim_mhz, Reason.CPU),
            (self._free_mib, demand.ram_mib, Reason.MEMORY),
        ):
            np.less(free, min(needed, _MOST), out=self._low)
            np.multiply(self._low.view(np.uint8), _NUMBER[reason], out=self._said)
            np.maximum(codes, self._said, out=codes)
        if demand.disks:
            of_groups = self._pools.codes(question, self._groups, Storage(self._cloud, question))
            np.maximum(codes, of_groups.take(self._group), out=codes)
        for host_id in question.avoid_hosts:
            row = self._row.get(host_id)
            if row is not None:
                codes[row] = Reason.AVOIDED
        return codes

    def _of_one(self, question: Question, host_id: int) -> Codes:
        codes = np.full(len(self.hosts), Reason.NOT_ASKED_FOR, np.uint8)
        for asked in (host_id, *question.avoid_hosts):
            row = self._row.get(asked)
            if row is not None:
                host = self.hosts[row]
                reason = of_host(self._cloud, host, question)
                codes[row] = reason or Storage(self._cloud, question).reason(host)
        return codes

    def _write(self, row: int, host: HostFacts) -> None:
        self._standing[row] = standing_of(self._cloud, host, any_allocation_state=False)
        self._standing_for_all[row] = standing_of(self._cloud, host, any_allocation_state=True)
        self._hypervisor[row] = self._number(host.hypervisor)
        self._pod[row] = host.pod_id
        self._cpus[row] = host.cpus
        self._cpu_mhz[row] = host.cpu_mhz
        self._least_cpus = min(self._least_cpus, host.cpus)
        self._least_cpu_mhz = min(self._least_cpu_mhz, host.cpu_mhz)
        self._free_mhz[row] = max(-_MOST, min(host.free_mhz, _MOST - 1))
        self._free_mib[row] = max(-_MOST, min(host.free_mib, _MOST - 1))
        self._category[row] = host.os_category_id or 0
        self._group[row] = self._number_of_group((host.cluster_id, host.pools))

    def _number_of_group(self, group: Group) -> int:
        found = self._group_of.get(group)
        if found is None:
            found = self._group_of[group] = len(self._groups)
            self._groups.append(group)
        return found

    def _number(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))

    def _without(self, tag: str) -> Flags:
        """Rows of hosts without the tag; kept for the tags that are asked for, until the tags of any host change."""
        found = self._tagged.get(tag)
        if found is None:
            found = np.fromiter((tag not in host.tags for host in self.hosts), np.bool_, len(self.hosts))
            self._tagged[tag] = found
        return found


class _Pools:
    """The pools of a zone, and which groups of hosts use them: hosts of one cluster with the same pools are a group."""

    def __init__(self, cloud: Cloud, zone: Zone) -> None:
        self._cloud = cloud
        self._pools = [cloud.pools[pool_id] for pool_id in sorted(zone.pools)]
        self._row = {pool.id: row for row, pool in enumerate(self._pools)}
        self._up = np.fromiter((pool.state == PoolState.UP for pool in self._pools), np.bool_, len(self._pools))
        self._free = np.fromiter((pool.free_bytes for pool in self._pools), np.int64, len(self._pools))
        self._room = np.where(self._up, self._free, _NO_ROOM)
        """Of pools that are up; the others take nothing new."""
        self._tagged: dict[frozenset[str], Flags] = {}
        self._groups = 0
        self._uses = np.zeros((0, 0), np.intp)
        self._without_pool: Codes = np.zeros(0, np.uint8)
        """NO_POOL for groups whose cluster has none."""

    def changed(self, pool: PoolFacts) -> None:
        row = self._row[pool.id]
        if self._pools[row].tags != pool.tags:
            self._tagged.clear()
        self._pools[row] = pool
        self._up[row] = pool.state == PoolState.UP
        self._free[row] = pool.free_bytes
        self._room[row] = pool.free_bytes if self._up[row] else _NO_ROOM

    def codes(self, question: Question, groups: list[Group], storage: Storage) -> Codes:
        """The reason of each group."""
        self._know(groups)
        fits = [(disk, self._fit(disk, question)) for disk in question.demand.disks]
        served = self._any(fits[0][1])
        for _, fit in fits[1:]:
            served &= self._any(fit)
        codes = np.multiply(np.logical_not(served, out=served).view(np.uint8), _NUMBER[Reason.POOLS])
        np.maximum(codes, self._without_pool, out=codes)
        new = [(disk, fit) for disk, fit in fits if disk.pool_id is None]
        if len(new) == 2:
            _say(codes, ~self._both(new[0], new[1]), Reason.TOGETHER)
        elif len(new) > 2:
            for group in np.flatnonzero(codes == 0):
                codes[group] = storage.of_group(groups[group])
        return codes

    def _both(self, one: tuple[DiskDemand, Flags], other: tuple[DiskDemand, Flags]) -> Flags:
        """Groups that use two pools of which each takes one of the disks, or a pool that takes both."""
        together = one[1] & other[1]
        together[:-1] &= self._free >= one[0].size_bytes + other[0].size_bytes
        found = self._any(together)
        slots = [(one[1].take(slot), other[1].take(slot)) for slot in self._uses]
        for first, second in permutations(range(len(slots)), 2):
            found |= slots[first][0] & slots[second][1]
        return found

    def _fit(self, disk: DiskDemand, question: Question) -> Flags:
        """Pools that take the disk, and False behind the last for slots without a pool."""
        if disk.pool_id is not None:
            fit = np.zeros(len(self._pools) + 1, np.bool_)
            row = self._row.get(disk.pool_id)
            if row is not None:
                fit[row] = self._up[row]
            return fit
        fit = np.empty(len(self._pools) + 1, np.bool_)
        fit[-1] = False
        np.greater_equal(self._room, disk.size_bytes, out=fit[:-1])
        if disk.tags:
            fit[:-1] &= self._with(disk.tags)
        for pool_id in question.avoid_pools:
            if pool_id in self._row:
                fit[self._row[pool_id]] = False
        for volume_id, pool_id in question.refused_pools:
            if volume_id == disk.volume_id and pool_id in self._row:
                fit[self._row[pool_id]] = False
        return fit

    def _any(self, fit: Flags) -> Flags:
        """Groups that use one of the pools."""
        if not len(self._uses):
            return np.zeros(self._uses.shape[1], np.bool_)
        found: Flags = fit.take(self._uses[0])
        for slot in self._uses[1:]:
            found |= fit.take(slot)
        return found

    def _with(self, tags: frozenset[str]) -> Flags:
        found = self._tagged.get(tags)
        if found is None:
            found = np.fromiter((tags <= pool.tags for pool in self._pools), np.bool_, len(self._pools))
            self._tagged[tags] = found
        return found

    def _know(self, groups: list[Group]) -> None:
        if len(groups) == self._groups and self._uses.shape[1] == len(groups):
            return
        nothing = len(self._pools)
        used = [
            [self._row[i] for i in pools if i in self._row and self._cloud.pools[i].cluster_id == cluster_id]
            for cluster_id, pools in groups
        ]
        self._uses = np.full((max(map(len, used), default=0), len(groups)), nothing, np.intp)
        for group, rows in enumerate(used):
            self._uses[: len(rows), group] = rows
        without = (not self._cloud.pools_of_cluster.get(cluster_id) for cluster_id, _ in groups)
        self._without_pool = np.fromiter(without, np.bool_, len(groups)).view(np.uint8) * _NUMBER[Reason.NO_POOL]
        self._groups = len(groups)


def _say(codes: Codes, holds: Flags, reason: Reason) -> None:
    """Where it holds, and nothing that is told first does, this is the reason."""
    np.maximum(codes, holds.view(np.uint8) * _NUMBER[reason], out=codes)
