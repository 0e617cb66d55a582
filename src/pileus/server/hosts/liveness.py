"""Which hosts live: states as compare-and-set, last signs of life written down sparsely.

Up, then Disconnected when its line ends, then Down after the wait. A host that loses its line because a server ends or
dies is not disconnected at once: no deploy may fail because a server is restarted. Only the server that holds a host's
line may call it disconnected, so a host that has moved to another server is not touched by the one it left.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import and_, or_, select, update

from pileus.server.db.tables.host import host
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.host import HOST, HostState
from pileus.wire.messages import HostFacts

PATIENCE_SECONDS = 60
"""How long a host may be without any server before it counts as disconnected, if it was a server that went."""


@dataclass(frozen=True)
class Change:
    """A host went into this state just now."""

    host_id: int
    state: HostState


def connected(tx: Tx, host_id: int, server: str, facts: HostFacts) -> list[Change]:
    """The host has a line to `server`: write what it is, and make it Up."""
    tx.execute(
        update(host)
        .where(host.c.id == host_id)
        .values(
            server=server,
            address=facts.address,
            version=facts.version,
            capabilities=facts.capabilities,
            cpus=facts.cpus,
            cpu_mhz=facts.cpu_mhz,
            memory_bytes=facts.memory_bytes,
            heard_at=tx.now,
            disconnected_at=None,
        )
    )
    return up(tx, host_id)


def up(tx: Tx, host_id: int) -> list[Change]:
    """The host gave a sign of life."""
    if transition(tx, host, host_id, HOST, HostState.UP, heard_at=tx.now, disconnected_at=None):
        return [Change(host_id, HostState.UP)]
    return []


def disconnected(tx: Tx, host_id: int, server: str) -> list[Change]:
    """The host's line to `server` ended."""
    holder = tx.scalar(select(host.c.server).where(host.c.id == host_id).with_for_update())
    if holder != server:
        return []
    values = {"server": None, "disconnected_at": tx.now}
    if transition(tx, host, host_id, HOST, HostState.DISCONNECTED, frm=HostState.UP, **values):
        return [Change(host_id, HostState.DISCONNECTED)]
    return []


def released(tx: Tx, server: str, host_ids: Iterable[int] | None = None) -> None:
    """The line of these hosts (None: of all) to `server` ended because the server did.

    Nothing is wrong with them, and in a moment they have a line to another: they stay Up for `PATIENCE_SECONDS`.
    """
    held = update(host).where(host.c.live == 1, host.c.server == server)
    if host_ids is not None:
        held = held.where(host.c.id.in_(list(host_ids)))
    tx.execute(held.values(server=None, disconnected_at=tx.now))


def held_by(tx: Tx, server: str, host_ids: Iterable[int]) -> list[int]:
    """Those of the hosts whose line is to `server`."""
    ids = list(host_ids)
    if not ids:
        return []
    mine = select(host.c.id).where(host.c.id.in_(ids), host.c.server == server).order_by(host.c.id).with_for_update()
    return [row["id"] for row in tx.all(mine)]


def heard(tx: Tx, host_ids: Iterable[int]) -> None:
    """Write down that these hosts gave signs of life."""
    ids = list(host_ids)
    if ids:
        tx.execute(update(host).where(host.c.id.in_(ids)).values(heard_at=tx.now))


def down(tx: Tx, *, wait_ms: int, silent: Iterable[int] = (), speaking: Iterable[int] = ()) -> list[Change]:
    """Hosts without a sign of life for `wait_ms` go Down, and the `silent` ones that their agent knows of.

    `speaking` hosts have a line here and are left alone, however old their written sign of life is.
    """
    before = tx.now - wait_ms
    spared = set(speaking)
    changes = _not_come_back(tx, spared)
    late = select(host.c.id).where(
        host.c.live == 1,
        or_(
            and_(host.c.state == str(HostState.DISCONNECTED), host.c.disconnected_at <= before),
            and_(host.c.state.in_((str(HostState.UP), str(HostState.ALERT))), host.c.heard_at <= before),
        ),
    )
    candidates = [row["id"] for row in tx.all(late) if row["id"] not in spared]
    for host_id in dict.fromkeys((*candidates, *silent)):
        if transition(tx, host, host_id, HOST, HostState.DOWN):
            changes.append(Change(host_id, HostState.DOWN))
    return changes


def _not_come_back(tx: Tx, spared: set[int]) -> list[Change]:
    """Hosts that were released and have found no other server."""
    before = tx.now - PATIENCE_SECONDS * 1000
    up = (host.c.live == 1, host.c.state == str(HostState.UP), host.c.server.is_(None))
    late = tx.all(select(host.c.id).where(*up, host.c.disconnected_at <= before).order_by(host.c.id))
    return [
        Change(row["id"], HostState.DISCONNECTED)
        for row in late
        if row["id"] not in spared and transition(tx, host, row["id"], HOST, HostState.DISCONNECTED, frm=HostState.UP)
    ]
