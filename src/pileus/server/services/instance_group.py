"""Instance groups: names under which an account gathers its guests."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping
from sqlalchemy.exc import IntegrityError

from pileus.server.auth import visibility
from pileus.server.db.queries import instance_group as groups
from pileus.server.db.queries.page import like, related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.vm import instance_group
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.ids import Id, InstanceGroup
from pileus.server.events import record, types
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds


def create(tx: Tx, caller: Caller, *, name: str, account_name: str | None, domain_id: int | None) -> dict[str, Any]:
    """A new group of the caller's account, or of the account named. 431 when it has one of this name."""
    owner = visibility.owner(tx, caller, account_name, domain_id)
    _check_free(tx, owner.account_id, name)
    return view(tx, caller, _add(tx, owner, name))


def named_or_new(tx: Tx, owner: Owner, name: str) -> int:
    """The key of the account's group of this name, made when there is none."""
    found = groups.named(tx, owner.account_id, name)
    if found is not None:
        return int(found["id"])
    checked_name(name, "group")
    try:
        with tx.connection.begin_nested():
            return _add(tx, owner, name)
    except IntegrityError:
        # Somebody else has just made it.
        again = groups.named(tx, owner.account_id, name)
        if again is None:
            raise
        return int(again["id"])


def update(tx: Tx, caller: Caller, group_id: Id[InstanceGroup], *, name: str | None) -> dict[str, Any]:
    """Rename a group; its guests stay in it."""
    row = groups.by_id(tx, group_id)
    visibility.require(tx, caller, row["account_id"], row["domain_id"], f"instance group {row['name']}")
    if name is not None and name != row["name"]:
        _check_free(tx, row["account_id"], name)
        groups.change(tx, group_id, name=name)
        _event(tx, row, caller.user_id, types.INSTANCE_GROUP_UPDATE, f"Renamed instance group {row['name']} to {name}")
    return view(tx, caller, group_id)


def delete(tx: Tx, caller: Caller, group_id: Id[InstanceGroup]) -> None:
    """Remove a group; its guests are in none."""
    row = groups.by_id(tx, group_id)
    visibility.require(tx, caller, row["account_id"], row["domain_id"], f"instance group {row['name']}")
    groups.remove(tx, instance_group.c.id == int(group_id))
    _event(tx, row, caller.user_id, types.INSTANCE_GROUP_DELETE, f"Deleted instance group {row['name']}")


def view(tx: Tx, caller: Caller, group_id: int) -> dict[str, Any]:
    """One group."""
    return _views(tx, [groups.by_id(tx, group_id)])[0]


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    group_id: int | None,
    name: str | None,
    account_name: str | None,
    domain_id: int | None,
    list_all: bool | None,
    is_recursive: bool | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Groups in the caller's scope."""
    scope = visibility.scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=group_id is not None,
        tx=tx,
    )
    where: list[ColumnElement[bool]] = scope.where(instance_group.c.account_id, instance_group.c.domain_id)
    if group_id is not None:
        where.append(instance_group.c.id == group_id)
    if name is not None:
        where.append(instance_group.c.name == name)
    if keyword:
        where.append(like(instance_group.c.name, keyword))
    offset, limit = bounds(tx, page, page_size)
    rows, total = groups.list_page(tx, where, offset=offset, limit=limit)
    return _views(tx, rows), total


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "created": row["created_at"],
            "account": accounts[row["account_id"]]["name"],
            "domain_id": domains[row["domain_id"]]["uuid"],
            "domain": domains[row["domain_id"]]["name"],
        }
        for row in rows
    ]


def _check_free(tx: Tx, account_id: int, name: str) -> None:
    checked_name(name, "name")
    if groups.named(tx, account_id, name) is not None:
        raise ParameterError(f"the account has an instance group {name} already", parameter="name")


def _add(tx: Tx, owner: Owner, name: str) -> int:
    group_id = groups.add(tx, name=name, account_id=owner.account_id, domain_id=owner.domain_id)
    row = groups.by_id(tx, group_id)
    _event(tx, row, owner.user_id, types.INSTANCE_GROUP_CREATE, f"Created instance group {name}")
    return group_id


def _event(tx: Tx, row: RowMapping, user_id: int, type: str, text: str) -> None:
    record(
        tx,
        type=type,
        description=text,
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=user_id,
        resource_kind="InstanceGroup",
        resource_id=row["id"],
    )
