"""What callers learn of jobs: whether they are done, with what result, and which jobs are open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, RowMapping

from pileus.server.auth import visibility
from pileus.server.auth.kinds import KINDS
from pileus.server.db.queries import job as jobs
from pileus.server.db.queries.page import like
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import InternalError
from pileus.server.domain.ids import (
    Account,
    Cluster,
    Domain,
    Entity,
    FirewallRule,
    Host,
    Id,
    IpForwardingRule,
    Job,
    LoadBalancerRule,
    Network,
    PortForwardingRule,
    PublicIp,
    RemoteAccessVpn,
    Router,
    StoragePool,
    Template,
    User,
    Vm,
    Volume,
    VpnUser,
    Zone,
)
from pileus.server.domain.job import JobStatus, Phase
from pileus.server.services.paging import bounds

INSTANCE_KINDS: Mapping[type[Entity], tuple[str, ...]] = {
    Account: ("Account",),
    Cluster: ("Cluster",),
    Domain: ("Domain",),
    FirewallRule: ("Firewall",),
    Host: ("Host",),
    IpForwardingRule: ("IpForwardingRule",),
    LoadBalancerRule: ("LoadBalancerRule",),
    Network: ("Network",),
    PortForwardingRule: ("FirewallRule", "PortForwardingRule"),
    PublicIp: ("IpAddress", "PublicIp"),
    RemoteAccessVpn: ("RemoteAccessVpn",),
    Router: ("DomainRouter",),
    StoragePool: ("StoragePool",),
    Template: ("Template",),
    User: ("User",),
    Vm: ("VirtualMachine",),
    Volume: ("Volume",),
    VpnUser: ("VpnUser",),
    Zone: ("Zone",),
}
"""Wire names of what a job works on (`job.instance_kind`), by kind."""

_KIND_OF = {name: kind for kind, names in INSTANCE_KINDS.items() for name in names}
_ENDED = {Phase.SUCCEEDED: JobStatus.SUCCEEDED, Phase.FAILED: JobStatus.FAILED}


@dataclass(frozen=True)
class Outcome:
    """A job as told to its caller. `facts` were set by its steps and may hold what is shown to its own caller only."""

    view: dict[str, Any]
    status: JobStatus
    command: str
    instance_id: int | None
    facts: Mapping[str, Any]
    error_code: int
    error_text: str


def outcome(tx: Tx, caller: Caller, job_id: Id[Job]) -> Outcome:
    """How a job stands. What its steps tell in confidence reaches only the account it ran for and whoever called."""
    row = jobs.by_id(tx, job_id)
    if row is None:
        raise InternalError("a job that was found is gone")
    status = _status(row)
    ours = caller.account_id == row["account_id"] or caller.user_id == row["user_id"]
    facts = msgspec.json.decode(row["result"]) if row["result"] and ours and status is JobStatus.SUCCEEDED else {}
    return Outcome(
        view=_views(tx, [row])[0],
        status=status,
        command=row["command"],
        instance_id=row["instance_id"],
        facts=facts,
        error_code=row["error_code"] or InternalError.code,
        error_text=row["error_text"] or "",
    )


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    account: str | None,
    domain_id: int | None,
    list_all: bool | None,
    is_recursive: bool | None,
    start: int | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Open jobs in the caller's scope, without the jobs that other jobs wait for."""
    scope = visibility.scope(
        caller, account=account, domain_id=domain_id, list_all=list_all, is_recursive=is_recursive, tx=tx
    )
    where: list[ColumnElement[bool]] = [jobs.is_open, jobs.is_top_level]
    where += scope.where(jobs.account_column, jobs.domain_column)
    if start is not None:
        where.append(jobs.created_column >= start)
    if keyword:
        where.append(like(jobs.command_column, keyword))
    offset, limit = bounds(tx, page, page_size)
    rows, count = jobs.list_page(tx, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def pending_of(tx: Tx, caller: Caller, kind: type[Entity], uuids: list[str]) -> dict[str, str]:
    """UUIDs of open jobs, by the UUID of what they work on: those the caller may ask about."""
    names = INSTANCE_KINDS.get(kind)
    if names is None:
        return {}
    askable = visibility.scope(caller, list_all=True, tx=tx).where(jobs.account_column, jobs.domain_column)
    return jobs.pending_of(tx, names, KINDS[kind].table, uuids, askable)


def pending_by_key(tx: Tx, caller: Caller, kind: type[Entity], keys: Sequence[int]) -> dict[int, str]:
    """As `pending_of`, by keys: for pages that know them."""
    names = INSTANCE_KINDS.get(kind)
    if names is None:
        return {}
    found = jobs.pending_by_key(tx, names, keys)
    if not found:
        return {}
    askable = visibility.scope(caller, list_all=True, tx=tx)
    if not askable.everything:
        theirs = jobs.among_jobs(tx, [row[1] for row in found], askable.where(jobs.account_column, jobs.domain_column))
        found = [row for row in found if row[1] in theirs]
    return {key: uuid for key, _, uuid in found}


def _status(row: RowMapping) -> JobStatus:
    return _ENDED.get(Phase(row["phase"]), JobStatus.PENDING)


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    instances = _instances(tx, rows)
    accounts, users = jobs.owners(tx, {row["account_id"] for row in rows}, {row["user_id"] for row in rows})
    return [
        {
            "job_id": row["uuid"],
            "account_id": accounts.get(row["account_id"]),
            "user_id": users.get(row["user_id"]),
            "cmd": row["command"],
            "job_status": int(_status(row)),
            "job_proc_status": 0,
            "job_result_code": _result_code(row),
            "job_instance_type": row["instance_kind"],
            "job_instance_id": instances.get((row["instance_kind"], row["instance_id"])),
            "created": row["created_at"],
            "completed": row["completed_at"],
        }
        for row in rows
    ]


def _result_code(row: RowMapping) -> int:
    return int(row["error_code"] or InternalError.code) if _status(row) is JobStatus.FAILED else 0


def _instances(tx: Tx, rows: list[RowMapping]) -> dict[tuple[str, int], str]:
    """UUIDs of what jobs work on, by kind and key: one query for each kind."""
    keys: dict[str, set[int]] = {}
    for row in rows:
        if row["instance_kind"] in _KIND_OF and row["instance_id"] is not None:
            keys.setdefault(row["instance_kind"], set()).add(row["instance_id"])
    return {
        (name, key): uuid
        for name, wanted in keys.items()
        for key, uuid in jobs.uuids_in(tx, KINDS[_KIND_OF[name]].table, wanted).items()
    }
