"""Which hosts live: states as compare-and-set, last signs of life written down sparsely.

Up, then Disconnected when its line ends, then Down after the wait. A host that loses its line because a server ends or
dies is not disconnected at once: no deploy may fail because a server is restarted. Only the server that holds a host's
line may call it disconnected, so a host that has moved to another server is not touched by the one it left. Silence
counts only while somebody listened (`watched`): hosts of a farm that was off for an hour have all of the wait to come.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, bindparam, func, insert, or_, select, update

from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.host import host, host_watch
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition_all
from pileus.server.domain.host import HOST, HostState
from pileus.server.hosts.signal import announce_reconnect
from pileus.wire.messages import HostFacts

PATIENCE_SECONDS = 60
"""How long a host may be without any server before it counts as disconnected, if it was a server that went."""

CHUNK = 500
"""So many hosts go into one statement and one transaction: other writers get their turn in between."""

_WATCH = "agents"


@dataclass(frozen=True)
class Change:
    """A host went into this state just now."""

    host_id: int
    state: HostState


def connected(tx: Tx, facts: Mapping[int, HostFacts], server: str) -> list[Change]:
    """These hosts (at most `CHUNK`) have lines to `server`: write what they are, and make them Up."""
    news = []
    for row in _KNOWN_FACTS.all(tx, host_ids=facts):
        now = {name: getattr(facts[row["id"]], name) for name in _FACTS}
        if any(row[name] != value for name, value in now.items()):
            news.append({"of": row["id"], **now})
    if news:
        tx.execute(_NEW_FACTS, news)
    _CONNECTED.changed(tx, host_ids=facts, new_server=server, now=tx.now)
    return _go(tx, facts, HostState.UP)


_CONNECTED = Prepared(
    update(host)
    .where(host.c.id.in_(bindparam("host_ids", expanding=True)))
    .values(server=bindparam("new_server"), heard_at=bindparam("now"), disconnected_at=None, reconnect_asked_at=None)
)


def up(tx: Tx, host_ids: Collection[int]) -> list[Change]:
    """These hosts (at most `CHUNK`) gave signs of life."""
    return _go(tx, host_ids, HostState.UP, heard_at=tx.now, disconnected_at=None)


def disconnected(tx: Tx, host_ids: Collection[int], server: str) -> list[Change]:
    """The lines of these hosts (at most `CHUNK`) to `server` ended."""
    held = select(host.c.id).where(host.c.id.in_(list(host_ids)), host.c.server == server)
    left = [row["id"] for row in tx.all(held.order_by(host.c.id).with_for_update())]
    if not left:
        return []
    changes = _go(tx, left, HostState.DISCONNECTED)
    tx.execute(update(host).where(host.c.id.in_(left)).values(server=None, disconnected_at=tx.now))
    return changes


def held_by(tx: Tx, server: str, *, low: int = 0, high: int | None = None) -> list[int]:
    """Hosts that are written down as held by `server`, with ids from `low` to below `high`."""
    here = [host.c.live == 1, host.c.server == server, host.c.id >= low]
    if high is not None:
        here.append(host.c.id < high)
    return [row["id"] for row in tx.all(select(host.c.id).where(*here).order_by(host.c.id))]


def released(tx: Tx, server: str, host_ids: Collection[int] | None = None) -> None:
    """The line of these hosts (some hundreds; None: all) to `server` ended because the server did.

    Nothing is wrong with them, and in a moment they have a line to another: they stay Up for `PATIENCE_SECONDS`.
    """
    held = update(host).where(host.c.live == 1, host.c.server == server)
    if host_ids is not None:
        held = held.where(host.c.id.in_(list(host_ids)))
    tx.execute(held.values(server=None, disconnected_at=tx.now))


def not_come_back(tx: Tx, *, since: int, among: Collection[int] | None = None) -> list[int]:
    """Hosts that were released and have found no other server, though one was there (`since`) for all of the patience.

    With `among` (at most `CHUNK`) those of them that still are so, locked until the transaction ends.
    """
    before = tx.now - PATIENCE_SECONDS * 1000
    if since > before:
        return []
    return _ids(tx, _NOT_COME_BACK, among, before=before)


class _Some:
    """Hosts of a kind: all of them, or those among some hundreds, locked."""

    def __init__(self, found: Select[tuple[int]]) -> None:
        ordered = found.order_by(host.c.id)
        self.all = Prepared(ordered)
        self.among = Prepared(ordered.where(host.c.id.in_(bindparam("among", expanding=True))).with_for_update())


_NOT_COME_BACK = _Some(
    select(host.c.id).where(
        host.c.live == 1,
        host.c.state == str(HostState.UP),
        host.c.server.is_(None),
        host.c.disconnected_at <= bindparam("before"),
    )
)


def lost_line(tx: Tx, host_ids: Collection[int]) -> list[Change]:
    """These hosts (at most `CHUNK`) have no line, and it is not a server's fault any more."""
    return _go(tx, host_ids, HostState.DISCONNECTED)


def still_held(tx: Tx, server: str, host_ids: Collection[int]) -> list[int]:
    """Those of the hosts (at most `CHUNK`) whose line is to `server`."""
    mine = select(host.c.id).where(host.c.id.in_(list(host_ids)), host.c.server == server)
    return [row["id"] for row in tx.all(mine.order_by(host.c.id).with_for_update())]


def highest(tx: Tx, server: str) -> int:
    """The highest id of a host held by `server`; 0 when it holds none."""
    return int(tx.scalar(select(func.max(host.c.id)).where(host.c.live == 1, host.c.server == server)) or 0)


def heard(tx: Tx, server: str, *, low: int, high: int, silent: Collection[int]) -> None:
    """All hosts that `server` holds with ids from `low` to below `high` gave signs of life, except the silent ones."""
    here = [host.c.id >= low, host.c.id < high, host.c.live == 1, host.c.server == server]
    quiet = [host_id for host_id in silent if low <= host_id < high]
    if quiet:
        here.append(host.c.id.not_in(quiet))
    tx.execute(update(host).where(*here).values(heard_at=tx.now))


def watched(tx: Tx, *, gap_ms: int) -> int:
    """Say that this server listens to hosts now. Returns since when somebody of the farm has, without a gap."""
    row = tx.one(select(host_watch).where(host_watch.c.name == _WATCH).with_for_update())
    if row is None:
        tx.execute(insert(host_watch).values(name=_WATCH, since_at=tx.now, until_at=tx.now))
        return tx.now
    since = int(row["since_at"]) if tx.now - row["until_at"] <= gap_ms else tx.now
    until = max(tx.now, row["until_at"])
    tx.execute(update(host_watch).where(host_watch.c.name == _WATCH).values(since_at=since, until_at=until))
    return since


def late(
    tx: Tx, *, server: str, wait_ms: int, written_ms: int, since: int, among: Collection[int] | None = None
) -> list[int]:
    """Hosts without a line here that gave no sign of life for `wait_ms` of watched time (`since`).

    The last sign of a host that another server holds is up to `written_ms` later than what is written. `among` as for
    `not_come_back`.
    """
    if since > tx.now - wait_ms:
        return []
    before = tx.now - wait_ms
    return _ids(tx, _LATE, among, before=before, written_before=before - written_ms, here=server)


_LATE = _Some(
    select(host.c.id).where(
        host.c.live == 1,
        or_(
            and_(host.c.state == str(HostState.DISCONNECTED), host.c.disconnected_at <= bindparam("before")),
            and_(
                host.c.state.in_((str(HostState.UP), str(HostState.ALERT))),
                host.c.heard_at <= bindparam("written_before"),
                or_(host.c.server.is_(None), host.c.server != bindparam("here")),
            ),
        ),
    )
)


def down(tx: Tx, host_ids: Collection[int]) -> list[Change]:
    """These hosts (at most `CHUNK`) are lost."""
    return _go(tx, host_ids, HostState.DOWN)


def reconnecting(tx: Tx, server: str) -> list[int]:
    """Hosts held by `server` whose lines are to end, so that their agents connect anew."""
    asked = select(host.c.id).where(host.c.live == 1, host.c.reconnect_asked_at.is_not(None), host.c.server == server)
    return [row["id"] for row in tx.all(asked)]


def ask_to_reconnect(tx: Tx, host_id: int) -> None:
    """The host's line, if a server holds one, is to end so that its agent connects anew; whoever holds it is told."""
    held = update(host).where(host.c.id == host_id, host.c.live == 1, host.c.server.is_not(None))
    if tx.execute(held.values(reconnect_asked_at=tx.now)).rowcount:
        tx.after_commit(lambda: announce_reconnect(host_id))


def ask_no_more(tx: Tx, host_id: int) -> None:
    """The host's line may stay, if it has not ended yet."""
    tx.execute(update(host).where(host.c.id == host_id).values(reconnect_asked_at=None))


def _ids(tx: Tx, found: _Some, among: Collection[int] | None, **values: Any) -> list[int]:
    if among is None:
        return found.all.scalars(tx, **values)
    return found.among.scalars(tx, among=among, **values)


def _go(tx: Tx, host_ids: Collection[int], state: HostState, **values: int | None) -> list[Change]:
    return [Change(host_id, state) for host_id in transition_all(tx, host, host_ids, HOST, state, **values)]


_FACTS = ("address", "version", "capabilities", "cpus", "cpu_mhz", "memory_bytes")

_KNOWN_FACTS = Prepared(
    select(host.c.id, *(host.c[name] for name in _FACTS))
    .where(host.c.id.in_(bindparam("host_ids", expanding=True)))
    .order_by(host.c.id)
    .with_for_update()
)

_NEW_FACTS = update(host).where(host.c.id == bindparam("of")).values({name: bindparam(name) for name in _FACTS})
