"""Fleets of simulated hosts: agents that make whatever hosts of hypervisor Simulator somebody adds."""

import hashlib
from typing import Any

from sqlalchemy import RowMapping

from pileus.server.db.queries import fleet as fleets
from pileus.server.db.queries import host as hosts
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.ids import Fleet, Id
from pileus.server.events import record_by, types
from pileus.server.hosts.fleets import revoke
from pileus.server.services.host import SHORTEST_TOKEN, TOKEN_LIFE_MS
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds


def add(tx: Tx, caller: Caller, *, name: str, token: str) -> dict[str, Any]:
    """Expect a fleet: its agent enrols with the token, once. 431 for a used name, a short or a used token."""
    checked_name(name, "name")
    if fleets.named(tx, name) is not None:
        raise ParameterError(f"there is a fleet named {name} already", parameter="name")
    if len(token) < SHORTEST_TOKEN:
        raise ParameterError(
            f"token is the one-time secret with which the fleet's agent enrols: it must have at least {SHORTEST_TOKEN} "
            "characters (pileus token makes one)",
            parameter="token",
        )
    digest = hashlib.sha256(token.encode()).hexdigest()
    if hosts.token_taken(tx, digest) or fleets.token_taken(tx, digest):
        raise ParameterError("token was used before: make a new one", parameter="token")
    fleet_id = fleets.add(tx, name=name, token_hash=digest, token_expires_at=tx.now + TOKEN_LIFE_MS)
    _record(tx, caller, types.FLEET_CREATE, f"Fleet {name} was added", fleet_id)
    return view(tx, caller, fleet_id)


def delete(tx: Tx, caller: Caller, fleet_id: Id[Fleet]) -> None:
    """Remove a fleet: its agent can never connect again, and its hosts are for other fleets to take."""
    name = fleets.by_id(tx, fleet_id)["name"]
    revoke(tx, fleet_id)
    _record(tx, caller, types.FLEET_DELETE, f"Fleet {name} was deleted", fleet_id)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    fleet_id: int | None,
    name: str | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Fleets that match."""
    offset, limit = bounds(tx, page, page_size)
    rows, count = fleets.matching(tx, fleet_id=fleet_id, name=name, keyword=keyword, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, fleet_id: int) -> dict[str, Any]:
    """One fleet, as lists show it."""
    return _views(tx, [fleets.by_id(tx, fleet_id)])[0]


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    counts = fleets.hosts_of(tx, [row["id"] for row in rows]) if rows else {}
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "hosts": counts.get(row["id"], 0),
            "connected": row["server"] is not None,
            "management_server_id": row["server"],
            "disconnected": row["disconnected_at"],
            "created": row["created_at"],
        }
        for row in rows
    ]


def _record(tx: Tx, caller: Caller, event: str, text: str, fleet_id: int) -> None:
    record_by(tx, caller, event, text, kind="Fleet", id=fleet_id)
