"""Which pools of a host take the disks of a demand. Hosts of one cluster with the same pools are asked for once."""

from collections.abc import Callable, Iterable, Sequence

from pileus.server.placement.demand import DiskDemand
from pileus.server.placement.facts import Cloud, HostFacts, PoolFacts
from pileus.server.placement.reasons import Question, Reason, of_pool

Ranked = Callable[[DiskDemand, Sequence[PoolFacts]], Sequence[PoolFacts]]
"""Pools that take a disk, best first."""

Group = tuple[int, tuple[int, ...]]
"""A cluster and pools: hosts that have both in common are the same to storage."""

MOST_TRIES = 2000
"""Ways of laying disks on pools that are tried for one host."""


class Storage:
    """The storage of one question."""

    def __init__(self, cloud: Cloud, question: Question) -> None:
        self._cloud = cloud
        self._question = question
        self._known: dict[Group, Reason] = {}

    def reason(self, host: HostFacts) -> Reason:
        """Why the disks find no place on the host's pools."""
        return self.of_group((host.cluster_id, host.pools)) if self._question.demand.disks else Reason.FITS

    def of_group(self, group: Group) -> Reason:
        """As `reason`, for every host of a group."""
        if group not in self._known:
            self._known[group] = self._reason(*group)
        return self._known[group]

    def lay(self, host: HostFacts, ranked: Ranked) -> dict[int, int] | None:
        """A pool for each volume, None when they do not all find one."""
        pools = self._usable(host.cluster_id, host.pools)
        found: dict[int, int] = {}
        choices = []
        for disk in self._question.demand.disks:
            fitting = [pool for pool in pools if of_pool(pool, disk, self._question) is None]
            if disk.pool_id is not None:
                if not fitting:
                    return None
                found[disk.volume_id] = disk.pool_id
            else:
                choices.append((disk, ranked(disk, fitting)))
        laid = _laid(choices)
        return None if laid is None else {**found, **laid}

    def _reason(self, cluster_id: int, attached: tuple[int, ...]) -> Reason:
        if not self._cloud.pools_of_cluster.get(cluster_id):
            return Reason.NO_POOL
        pools = self._usable(cluster_id, attached)
        question = self._question
        choices = []
        for disk in question.demand.disks:
            fitting = [pool for pool in pools if of_pool(pool, disk, question) is None]
            if not fitting:
                return Reason.POOLS
            if disk.pool_id is None:
                choices.append((disk, fitting))
        return Reason.FITS if _laid(choices) is not None else Reason.TOGETHER

    def _usable(self, cluster_id: int, attached: Iterable[int]) -> list[PoolFacts]:
        pools = (self._cloud.pools.get(pool_id) for pool_id in attached)
        return [pool for pool in pools if pool is not None and pool.cluster_id == cluster_id]


def _laid(choices: Sequence[tuple[DiskDemand, Sequence[PoolFacts]]]) -> dict[int, int] | None:
    """The first way to give each disk one of its pools so that all have room. Some way is found if there is one,
    unless more than `MOST_TRIES` would have to be tried."""
    if len(choices) == 1:
        (disk, pools) = choices[0]
        return {disk.volume_id: pools[0].id} if pools else None
    free = {pool.id: pool.free_bytes for _, pools in choices for pool in pools}
    found: dict[int, int] = {}
    tries = 0

    def lay(position: int) -> bool:
        nonlocal tries
        if position == len(choices):
            return True
        disk, pools = choices[position]
        for pool in pools:
            tries += 1
            if tries > MOST_TRIES:
                return False
            if free[pool.id] >= disk.size_bytes:
                free[pool.id] -= disk.size_bytes
                found[disk.volume_id] = pool.id
                if lay(position + 1):
                    return True
                free[pool.id] += disk.size_bytes
        return False

    return found if lay(0) else None
