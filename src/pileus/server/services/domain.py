"""Domains: the tree in which accounts live. Guide: "Accounts, Users, and Domains"."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping

from pileus.server import events
from pileus.server.auth import visibility
from pileus.server.db.queries import count
from pileus.server.db.queries import domain as domains
from pileus.server.db.queries.page import like, related
from pileus.server.db.tables.account import domain
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, UNLIMITED, Resource
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.dns_name import dns_domain
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.ids import Domain, Id
from pileus.server.jobs.submit import submit
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds
from pileus.server.workflows.domain_delete import delete_domain, refuse_used, shut
from pileus.server.workflows.drain import CLEAN_UP_SECONDS

LONGEST_PATH = 1024


def create(tx: Tx, caller: Caller, *, name: str, parent_id: int | None, network_domain: str | None) -> dict[str, Any]:
    """A new domain below a parent, ROOT unless given."""
    parent = _live(tx, parent_id or ROOT_DOMAIN)
    if parent["state"] != domains.ACTIVE:
        raise ParameterError("the domain is being deleted", parameter="parentdomainid")
    _check(tx, parent, name)
    path = f"{parent['path']}{name}/"
    if len(path) > LONGEST_PATH:
        raise ParameterError(f"the path of the domain is longer than {LONGEST_PATH} characters", parameter="name")
    suffix = dns_domain(network_domain, "networkdomain") if network_domain else None
    domain_id = domains.add(
        tx, name=name, parent_id=parent["id"], path=path, level=parent["level"] + 1, network_domain=suffix
    )
    count.open_counts(tx, count.DOMAIN, domain_id, dict.fromkeys(Resource, UNLIMITED))
    _event(tx, caller, events.types.DOMAIN_CREATE, f"creating domain {path}", domain_id)
    return view(tx, caller, domain_id)


def update(
    tx: Tx, caller: Caller, domain_id: Id[Domain], *, name: str | None, network_domain: str | None
) -> dict[str, Any]:
    """Rename a domain, with the paths of everything below it, or change its network domain."""
    row = _live(tx, domain_id)
    if name is not None and name != row["name"]:
        if row["parent_id"] is None:
            raise ParameterError("ROOT keeps its name", parameter="name")
        parent = _live(tx, row["parent_id"])
        _check(tx, parent, name)
        path = f"{parent['path']}{name}/"
        tree = domains.subtree(tx, row["path"])
        if max(len(below["path"]) for below in tree) - len(row["path"]) + len(path) > LONGEST_PATH:
            raise ParameterError(f"a path below it would be longer than {LONGEST_PATH} characters", parameter="name")
        for below in tree:
            domains.change(tx, below["id"], path=path + below["path"][len(row["path"]) :])
        domains.change(tx, domain_id, name=name)
    if network_domain is not None:
        suffix = dns_domain(network_domain, "networkdomain") if network_domain else None
        domains.change(tx, domain_id, network_domain=suffix)
    _event(tx, caller, events.types.DOMAIN_UPDATE, f"updating domain {row['path']}", domain_id)
    return view(tx, caller, domain_id)


def delete(tx: Tx, caller: Caller, domain_id: Id[Domain], *, cleanup: bool) -> str:
    """Remove a domain, with `cleanup` with everything in it; returns the job's UUID.

    536 at once while it is not empty and `cleanup` was not asked for, or while zones belong to it. With `cleanup`
    nobody gets in from this transaction on, and there is no way back; asked again, it tries again.
    """
    row = _live(tx, domain_id)
    if domain_id == ROOT_DOMAIN:
        raise ParameterError("ROOT cannot be deleted", parameter="id")
    if caller.domain_path.startswith(row["path"]):
        raise ParameterError("this domain holds your own account", parameter="id")
    refuse_used(tx, domains.subtree(tx, row["path"]), cleanup=cleanup)
    if cleanup:
        shut(tx, domain_id)
    started = _event(
        tx, caller, events.types.DOMAIN_DELETE, f"deleting domain {row['path']}", domain_id, state="Scheduled"
    )
    plan = delete_domain(domain=int(domain_id), account=int(caller.account_id), cleanup=cleanup)
    job = submit(
        tx,
        plan,
        Owner(caller.account_id, caller.domain_id, caller.user_id),
        command="deleteDomain",
        instance_kind="Domain",
        instance_id=domain_id,
        resource_key=f"domain:{domain_id}",
        start_event_id=started,
        deadline_seconds=CLEAN_UP_SECONDS,
    )
    return job.uuid


def view(tx: Tx, caller: Caller, domain_id: int) -> dict[str, Any]:
    """One domain."""
    return _views(tx, [_live(tx, domain_id)])[0]


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    domain_id: int | None,
    level: int | None,
    name: str | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Domains the caller administers: all of them, for domains are what an administrator chooses from."""
    where: list[ColumnElement[bool]] = [_visible(caller)]
    if domain_id is not None:
        where.append(domain.c.id == domain_id)
    if level is not None:
        if level < 0:
            raise ParameterError(f"level is a number from 0, which is ROOT; got {level}", parameter="level")
        where.append(domain.c.level == level)
    return _page(tx, where, name, keyword, page, page_size)


def children(
    tx: Tx,
    caller: Caller,
    *,
    domain_id: int | None,
    is_recursive: bool,
    name: str | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Domains below one, the caller's own unless given: the next level, or all levels."""
    top = _live(tx, caller.domain_id if domain_id is None else domain_id)
    where: list[ColumnElement[bool]] = [_visible(caller)]
    if is_recursive:
        where += [visibility.below(top["path"]), domain.c.id != top["id"]]
    else:
        where.append(domain.c.parent_id == top["id"])
    return _page(tx, where, name, keyword, page, page_size)


def _page(
    tx: Tx,
    where: list[ColumnElement[bool]],
    name: str | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    if name is not None:
        where.append(domain.c.name == name)
    if keyword:
        where.append(like(domain.c.name, keyword))
    offset, limit = bounds(tx, page, page_size)
    rows, total = domains.list_page(tx, where, offset=offset, limit=limit)
    return _views(tx, rows), total


def _visible(caller: Caller) -> ColumnElement[bool]:
    return visibility.below("/" if caller.is_admin else caller.domain_path)


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    parents = related(tx, domain, (row["parent_id"] for row in rows))
    full = domains.parents_with_children(tx, [row["id"] for row in rows])
    views = []
    for row in rows:
        parent = parents.get(row["parent_id"])
        views.append(
            {
                "id": row["uuid"],
                "name": row["name"],
                "level": row["level"],
                "parent_domain_id": parent["uuid"] if parent else None,
                "parent_domain_name": parent["name"] if parent else None,
                "has_child": row["id"] in full,
                "network_domain": row["network_domain"],
                "path": shown_path(row["path"]),
                "state": row["state"],
                "created": row["created_at"],
            }
        )
    return views


def shown_path(path: str) -> str:
    """A path as the API shows it: ROOT/a/b."""
    return ("ROOT" + path).rstrip("/")


def _check(tx: Tx, parent: RowMapping, name: str) -> None:
    checked_name(name, "name")
    if "/" in name:
        raise ParameterError("the name of a domain holds no /", parameter="name")
    if domains.named(tx, parent["id"], name) is not None:
        raise ParameterError(f"there is a domain {name} below {shown_path(parent['path'])} already", parameter="name")


def _live(tx: Tx, domain_id: int) -> RowMapping:
    row = domains.by_id(tx, domain_id)
    if row is None:
        raise ParameterError("there is no such domain", parameter="id")
    return row


def _event(tx: Tx, caller: Caller, type: str, text: str, domain_id: int, *, state: str = "Completed") -> int:
    return events.record_by(tx, caller, type, text, kind="Domain", id=domain_id, state=state)
