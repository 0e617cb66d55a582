"""Fleets: agents that make and hold simulated hosts. Who holds which host is decided here, in the database alone.

A host belongs to a fleet from the moment `claim` wrote it into the host's row. Two fleets cannot both have done so,
and what a fleet's certificate cannot do, whatever the fleet says: speak for a host of any other hypervisor.
"""

from collections.abc import Collection

from sqlalchemy import ColumnElement, RowMapping, func, insert, select, update

from pileus.server.db.tables.host import fleet, fleet_certificate, host
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import Hypervisor
from pileus.server.hosts.authority import Issued, Presented
from pileus.server.hosts.signal import announce_fleet_removed, announce_wanted
from pileus.wire.messages import HostKind, WantedHost


def want(tx: Tx, host_id: int) -> None:
    """The simulated host has nobody who holds it: whichever fleet or agent comes first shall."""
    tx.execute(update(host).where(host.c.id == host_id, *_simulated()).values(wanted=1, fleet_id=None))
    tx.after_commit(lambda: announce_wanted(host_id))


def take_for_agent(tx: Tx, host_id: int) -> bool:
    """An agent of its own enrols for the host. False when a fleet has it: then the agent cannot."""
    taken = update(host).where(host.c.id == host_id, host.c.fleet_id.is_(None)).values(wanted=None)
    return tx.execute(taken).rowcount == 1


def by_token(tx: Tx, digest: str) -> tuple[int, str] | None:
    """Id and UUID of the live fleet that enrols with this token."""
    row = tx.one(select(fleet.c.id, fleet.c.uuid).where(fleet.c.token_hash == digest, fleet.c.live == 1))
    return None if row is None else (row["id"], row["uuid"])


def certified(tx: Tx, fleet_id: int, issued: Issued) -> None:
    """From now on this certificate speaks for the fleet."""
    tx.execute(
        insert(fleet_certificate).values(
            serial=issued.serial, fleet_id=fleet_id, issued_at=issued.issued_at, expires_at=issued.expires_at
        )
    )


def counting(tx: Tx, shown: Presented | None) -> tuple[int, str] | None:
    """Id and UUID of the fleet for which a verified certificate counts now: named, not revoked, not removed."""
    if shown is None or not shown.fleet:
        return None
    row = tx.one(
        select(fleet.c.id, fleet.c.uuid)
        .join(fleet_certificate, fleet_certificate.c.fleet_id == fleet.c.id)
        .where(
            fleet_certificate.c.serial == shown.serial,
            fleet_certificate.c.revoked_at.is_(None),
            fleet.c.uuid == shown.fleet,
            fleet.c.live == 1,
        )
    )
    return None if row is None else (row["id"], row["uuid"])


def accepted(tx: Tx, fleet_id: int, uuids: Collection[str]) -> dict[str, int]:
    """Which of these hosts (UUID to id) the fleet may speak for: its own, simulated, not removed."""
    if not uuids:
        return {}
    mine = select(host.c.uuid, host.c.id).where(
        host.c.uuid.in_(list(uuids)), host.c.fleet_id == fleet_id, *_simulated()
    )
    return {row["uuid"]: row["id"] for row in tx.all(mine)}


def owned(tx: Tx, fleet_id: int, *, after: int, limit: int) -> list[tuple[int, WantedHost]]:
    """Hosts that are the fleet's already, by id, beginning after one."""
    mine = select(host.c.id, host.c.uuid, host.c.name, host.c.url).where(
        host.c.fleet_id == fleet_id, host.c.id > after, *_simulated()
    )
    return [(row["id"], _wanted(row)) for row in tx.all(mine.order_by(host.c.id).limit(limit))]


def count_wanted(tx: Tx, *, most: int) -> int:
    """How many simulated hosts have nobody; counting ends at `most`."""
    some = select(host.c.id).where(host.c.wanted == 1, *_simulated()).limit(most).subquery()
    return int(tx.scalar(select(func.count()).select_from(some)))


def claim(tx: Tx, fleet_id: int, *, limit: int) -> list[tuple[int, WantedHost]]:
    """Give the fleet up to `limit` hosts that nobody holds. Others may claim at the same time: each host is given once.

    A fleet that was removed gets none.
    """
    if tx.scalar(select(fleet.c.id).where(fleet.c.id == fleet_id, fleet.c.live == 1).with_for_update()) is None:
        return []
    free = (
        select(host.c.id, host.c.uuid, host.c.name, host.c.url)
        .where(host.c.wanted == 1, *_simulated())
        .order_by(host.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = tx.all(free)
    if rows:
        ids = [row["id"] for row in rows]
        tx.execute(update(host).where(host.c.id.in_(ids), host.c.wanted == 1).values(wanted=None, fleet_id=fleet_id))
    return [(row["id"], _wanted(row)) for row in rows]


def connected(tx: Tx, fleet_id: int, server: str) -> None:
    """The fleet has a line to `server`."""
    tx.execute(update(fleet).where(fleet.c.id == fleet_id).values(server=server, disconnected_at=None))


def disconnected(tx: Tx, fleet_id: int, server: str) -> None:
    """The fleet's line to `server` ended."""
    here = update(fleet).where(fleet.c.id == fleet_id, fleet.c.server == server)
    tx.execute(here.values(server=None, disconnected_at=tx.now))


def revoke(tx: Tx, fleet_id: int) -> None:
    """No certificate or token counts for the fleet any more; its hosts are for others, and its line is ended."""
    tx.execute(
        update(fleet_certificate)
        .where(fleet_certificate.c.fleet_id == fleet_id, fleet_certificate.c.revoked_at.is_(None))
        .values(revoked_at=tx.now)
    )
    tx.execute(update(fleet).where(fleet.c.id == fleet_id).values(live=None, removed_at=tx.now, key_sha256=None))
    left = update(host).where(host.c.fleet_id == fleet_id)
    tx.execute(left.where(*_simulated()).values(fleet_id=None, wanted=1))

    def tell() -> None:
        announce_fleet_removed(fleet_id)
        announce_wanted(0)

    tx.after_commit(tell)


def _wanted(row: RowMapping) -> WantedHost:
    return WantedHost(row["uuid"], row["name"], str(row["url"]).partition("?")[2])


def _simulated() -> tuple[ColumnElement[bool], ...]:
    return (
        host.c.live == 1,
        host.c.hypervisor == str(Hypervisor.SIMULATOR),
        host.c.kind == str(HostKind.ROUTING),
    )
