"""All hosts and pools in memory, refreshed by the log of changed rows: one query, and one more per kind of change.

One view per process, shared by its threads under a lock that is held for reads only, never while a row is claimed.
What a unit of work has changed and not committed is read by itself, and distrusted by whoever comes next.
Numbers of the log are given before commits: where several write at once, one may appear behind a later one. Those
that are missing are looked for until `MISSING_MS` later.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pileus.server.db import changes
from pileus.server.db.changes import Change
from pileus.server.db.queries import placement as queries
from pileus.server.db.queries.placement import Fields
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import AllocationState
from pileus.server.placement.facts import Cloud, HostFacts, PoolFacts

MOST_CHANGES = 5000
"""With more of them than this, all is read again."""

MISSING_MS = 60_000
"""Longer than any transaction lasts."""

MOST_MISSING = 200

RELOAD_MS = 3_600_000
"""All is read again after this time, whatever the log says: somebody may have written by hand."""

_ROOM = ("cpu_total_mhz", "cpu_used_mhz", "ram_total_mib", "ram_used_mib")

_KEPT = "placement"


class View:
    """What this process knows of the cloud's hosts and pools."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cloud: Cloud | None = None
        self._loaded_at = 0
        self._last = 0
        self._missing: dict[int, int] = {}
        self._distrusted: set[Change] = set()

    @contextmanager
    def cloud(self, tx: Tx, *, anew: bool = False) -> Iterator[Cloud]:
        """The cloud as this unit of work sees it, nobody else's meanwhile; `anew` reads everything again."""
        with self._lock:
            if anew:
                self._cloud = None
            yield self._refreshed(tx)

    def took(self, zone_id: int, host_id: int) -> None:
        """A host was taken: in horizontal allocation, the one behind it has its turn next."""
        with self._lock:
            if self._cloud is not None:
                self._cloud.zone(zone_id).last_turn = host_id

    def _refreshed(self, tx: Tx) -> Cloud:
        mine = changes.pending(tx.connection)
        cloud = self._cloud
        if cloud is None or tx.now - self._loaded_at >= RELOAD_MS or changes.EVERYTHING in self._distrusted | mine:
            return self._load(tx, mine)
        found = queries.logged(tx, since=self._last, missing=self._missing, limit=MOST_CHANGES)
        news = [entry for entry in found if entry.number > self._last]
        if self._last and not any(entry.number == self._last for entry in found):
            if not news:
                # This unit of work began before the view's last look: what it could read is older.
                return cloud
            return self._load(tx, mine)
        changed = {entry.change for entry in found if entry.number != self._last}
        if changes.EVERYTHING in changed or len(found) == MOST_CHANGES:
            return self._load(tx, mine)
        self._note_missing(tx, [entry.number for entry in found])
        changed |= self._distrusted | mine
        if changed:
            _read_again(tx, cloud, changed)
        self._distrusted = set(mine)
        return cloud

    def _load(self, tx: Tx, mine: Iterable[Change]) -> Cloud:
        """Read everything. The log is looked at first: what comes after that look is read twice, never missed."""
        self._last, self._missing = 0, {}
        newest = queries.newest_change(tx)
        before = queries.logged(tx, since=max(newest - MOST_MISSING, 1), limit=MOST_MISSING + 1) if newest else []
        if before:
            self._last = before[0].number
            self._note_missing(tx, [entry.number for entry in before])
        turns = {} if self._cloud is None else {key: zone.last_turn for key, zone in self._cloud.zones.items()}
        cloud = Cloud()
        cloud.os_categories = {row[0]: row[1] for row in queries.os_types(tx)}
        cloud.closed_pods = {row[0] for row in queries.pods(tx) if row[1] != AllocationState.ENABLED}
        cloud.closed_clusters = {row[0] for row in queries.clusters(tx) if row[1] != AllocationState.ENABLED}
        for pool in _with_tags(queries.pools(tx), queries.pool_tags(tx)):
            cloud.put_pool(pool)
        for host in _whole(queries.hosts(tx), queries.host_tags(tx), queries.attachments(tx)):
            cloud.put_host(host)
        for key, turn in turns.items():
            cloud.zone(key).last_turn = turn
        self._cloud, self._loaded_at, self._distrusted = cloud, tx.now, set(mine)
        return cloud

    def _note_missing(self, tx: Tx, seen: list[int]) -> None:
        """Go on from the newest entry, and remember the numbers below it that nobody has been seen to use."""
        for number in seen:
            self._missing.pop(number, None)
        newest = max(seen, default=self._last)
        there = set(seen)
        for number in range(max(self._last + 1, newest - MOST_MISSING), newest):
            if number not in there:
                self._missing[number] = tx.now
        self._last = newest
        self._missing = {
            number: since
            for number, since in list(self._missing.items())[-MOST_MISSING:]
            if tx.now - since < MISSING_MS
        }


def of(tx: Tx) -> View:
    """The view of the unit of work's database."""
    view = tx.kept.setdefault(_KEPT, View())
    if not isinstance(view, View):
        raise TypeError(f"{view!r} is no view")
    return view


def _read_again(tx: Tx, cloud: Cloud, changed: Iterable[Change]) -> None:
    wanted: dict[str, set[int]] = {}
    for subject, row_id in changed:
        wanted.setdefault(subject, set()).add(row_id)
    for subject, read, known in (
        (changes.POD, queries.pods, cloud.closed_pods),
        (changes.CLUSTER, queries.clusters, cloud.closed_clusters),
    ):
        if subject in wanted:
            for row in read(tx, wanted[subject]):
                cloud.open_or_close(known, row[0], closed=row[1] != AllocationState.ENABLED)
    host_ids = wanted.get(changes.HOST, set())
    uses = wanted.get(changes.USES, set())
    if uses:
        host_ids |= queries.users_of(tx, uses)
        host_ids |= {host.id for host in cloud.hosts.values() if not uses.isdisjoint(host.pools)}
    tagged = wanted.get(changes.POOL_TAGS, set())
    pool_ids = wanted.get(changes.POOL, set()) | tagged
    if pool_ids:
        _pools_again(tx, cloud, pool_ids, tagged | (pool_ids - cloud.pools.keys()))
    if host_ids:
        _hosts_again(tx, cloud, host_ids)
    room = (wanted.get(changes.ROOM, set()) - host_ids) & cloud.hosts.keys()
    if room:
        for host_id, *fields in queries.room(tx, room):
            cloud.put_host(cloud.hosts[host_id]._replace(**dict(zip(_ROOM, fields, strict=True))))


def _pools_again(tx: Tx, cloud: Cloud, ids: set[int], tagged: set[int]) -> None:
    """Read pools, with tags only where these may have changed."""
    rows = list(queries.pools(tx, ids))
    tags_of = _gathered(queries.pool_tags(tx, tagged) if tagged else ())
    gone = set(ids)
    for row in rows:
        key = row[0]
        tags = frozenset(tags_of.get(key, ())) if key in tagged else cloud.pools[key].tags
        cloud.put_pool(PoolFacts._make((*row, tags)))
        gone.discard(key)
    for pool_id in gone:
        cloud.drop_pool(pool_id)


def _hosts_again(tx: Tx, cloud: Cloud, ids: set[int]) -> None:
    gone = set(ids)
    for host in _whole(queries.hosts(tx, ids), queries.host_tags(tx, ids), queries.attachments(tx, ids)):
        cloud.put_host(host)
        gone.discard(host.id)
    for host_id in gone:
        cloud.drop_host(host_id)


def _with_tags(pools: Iterable[Fields], tags: Iterable[Fields]) -> list[PoolFacts]:
    rows = list(pools)
    tags_of = _gathered(tags)
    return [PoolFacts._make((*row, frozenset(tags_of.get(row[0], ())))) for row in rows]


def _whole(
    hosts: Iterable[Fields],
    tags: Iterable[Fields],
    attachments: Iterable[Fields],
) -> list[HostFacts]:
    rows = list(hosts)
    tags_of, pools_of = _gathered(tags), _gathered(attachments)
    return [HostFacts._make((*row, tuple(tags_of.get(row[0], ())), tuple(pools_of.get(row[0], ())))) for row in rows]


def _gathered(pairs: Iterable[Fields]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return {key: sorted(values) for key, values in found.items()}
