"""The one rule of who sees what: used by every list, by every id parameter, and by whoever creates for another account.

Users see their own account. Domain and resource administrators see their domain and all below it, root administrators
everything; but their lists show only their own account unless they ask for more (`listall`, `domainid`, an id …).
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Column, ColumnElement, RowMapping, bindparam, func, select, true
from sqlalchemy.sql.elements import ColumnClause

from pileus.server.auth.kinds import KINDS, Kind, Rule
from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.account import account as accounts
from pileus.server.db.tables.account import domain as domains
from pileus.server.db.tables.template import template_permission
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import AccountState, Role
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError, PermissionDenied
from pileus.server.domain.ids import Entity, ServiceOffering, Template, Zone

_SUBTREE_ROLES = Role.DOMAIN_ADMIN | Role.RESOURCE_ADMIN

AnyColumn = Column[Any] | ColumnClause[Any]


@dataclass(frozen=True)
class Scope:
    """What a list may show. Exactly one of the fields is set; `everything` means no bound at all."""

    everything: bool = False
    account_id: int | None = None
    domain_id: int | None = None
    domain_path: str | None = None

    @property
    def name(self) -> Hashable:
        """Names the bounds; None for a subtree, which is another one once a domain is renamed."""
        return None if self.domain_path is not None else (self.everything, self.account_id, self.domain_id)

    def where(self, account_column: AnyColumn, domain_column: AnyColumn) -> list[ColumnElement[bool]]:
        """SQL conditions on the columns that say to whom a row belongs."""
        if self.everything:
            return []
        if self.account_id is not None:
            return [account_column == self.account_id]
        if self.domain_id is not None:
            return [domain_column == self.domain_id]
        return [domain_column.in_(select(domains.c.id).where(below(self.domain_path or "")))]


def below(path: str) -> ColumnElement[bool]:
    """Condition on `domain`: the domain of this path, and all below it. Exact in case, unlike LIKE."""
    if path == "/":
        return true()
    return func.substr(domains.c.path, 1, len(path)) == path


def scope(
    caller: Caller,
    *,
    account: str | None = None,
    domain_id: int | None = None,
    list_all: bool | None = None,
    is_recursive: bool | None = None,
    by_id: bool = False,
    tx: Tx,
) -> Scope:
    """The bounds of a list call. `by_id` says that an id was given: then everything the caller may see is in bounds.

    431 for an account that is not there, 531 for an account or a domain that is not the caller's to see.
    """
    if account is not None:
        return Scope(account_id=named_account(tx, caller, account, domain_id)["id"])
    if domain_id is not None:
        if not caller.is_admin and caller.role not in _SUBTREE_ROLES:
            if domain_id != caller.domain_id:
                raise PermissionDenied("this domain is not yours to see")
            return Scope(account_id=caller.account_id)
        path = _path(tx, domain_id)
        if not (caller.is_admin or path.startswith(caller.domain_path)):
            raise PermissionDenied("this domain is not yours to see")
        return Scope(domain_path=path) if is_recursive else Scope(domain_id=domain_id)
    if caller.sees_all or ((list_all or by_id) and caller.is_admin):
        return Scope(everything=True)
    if (list_all or by_id) and caller.role in _SUBTREE_ROLES:
        return Scope(domain_path=caller.domain_path)
    return Scope(account_id=caller.account_id)


def owner(tx: Tx, caller: Caller, account: str | None, domain_id: int | None) -> Owner:
    """On whose behalf something is made: the caller, or the account named. 431 if not there, 531 if not theirs."""
    if account is None:
        if domain_id is not None and domain_id != caller.domain_id:
            raise ParameterError("account is required when domainid is given", parameter="account")
        return Owner(caller.account_id, caller.domain_id, caller.user_id)
    row = named_account(tx, caller, account, domain_id)
    if row["state"] != AccountState.ENABLED:
        raise PermissionDenied(f"account {row['name']} is {row['state']}")
    return Owner(int(row["id"]), int(row["domain_id"]), caller.user_id)


def resolve(tx: Tx, caller: Caller, kind: type[Entity], raw: str, parameter: str, *, authorize: bool = True) -> int:
    """The key of a live entity, from its UUID or integer id, if this caller may see it.

    431 if there is none, 531 if it is not the caller's; with `authorize` False only the first.
    """
    entry = KINDS[kind]
    table = entry.table
    text = raw.strip()
    by_key = text.isdecimal() and len(text) < 19
    row = _finding(entry, by_key=by_key).one(tx, named=int(text) if by_key else text.lower())
    if row is None:
        raise ParameterError(f"there is no {entry.noun} {raw!r}", parameter=parameter)
    if authorize and not _sees(tx, caller, entry.rule, row):
        raise PermissionDenied(f"{entry.noun} {raw!r} is not yours to see or use")
    if kind in _STEADY:
        rows.keep(tx, table, row)
    return int(row["id"])


_STEADY = (Zone, ServiceOffering, Template)
"""Kinds whose rows a call that uses them does not change: they need not be read again."""


@cache
def _finding(entry: Kind, *, by_key: bool) -> Prepared:
    column = entry.table.c.id if by_key else entry.table.c.uuid
    return Prepared(select(entry.table).where(column == bindparam("named"), *entry.conditions))


def may_touch(tx: Tx, caller: Caller, account_id: int | None, domain_id: int | None) -> bool:
    """Whether something of this account and domain is within the caller's power."""
    if caller.is_admin:
        return True
    if account_id is not None and account_id == caller.account_id:
        return True
    if caller.role not in _SUBTREE_ROLES or domain_id is None:
        return False
    return _path(tx, domain_id).startswith(caller.domain_path)


def require(tx: Tx, caller: Caller, account_id: int | None, domain_id: int | None, what: str) -> None:
    """`PermissionDenied` unless the caller may change something of this account: seeing (a public template, a shared
    network) is not owning. `what` names it ("template 'web'")."""
    if not may_touch(tx, caller, account_id, domain_id):
        raise PermissionDenied(f"{what} is not yours to change")


def _sees(tx: Tx, caller: Caller, rule: Rule, row: RowMapping) -> bool:
    if caller.is_admin or rule is Rule.EVERYONE:
        return True
    if rule is Rule.ADMINS:
        return caller.role == Role.RESOURCE_ADMIN
    if rule is Rule.DOMAIN:
        if caller.role in _SUBTREE_ROLES:
            return str(row["path"]).startswith(caller.domain_path)
        return bool(row["id"] == caller.domain_id)
    if rule is Rule.ACCOUNT:
        return may_touch(tx, caller, row["id"], row["domain_id"])
    if rule is Rule.OFFERED:
        return row["domain_id"] is None or _within(tx, caller, row["domain_id"])
    if rule is Rule.VIA_VM:
        return may_touch(tx, caller, *_owner_of_vm(tx, row["vm_id"]))
    if may_touch(tx, caller, row["account_id"], row["domain_id"]):
        return True
    if rule is Rule.OWNED_OR_SHARED:
        return bool(row["is_shared"]) and _within(tx, caller, row["domain_id"])
    if rule is Rule.OWNED_OR_PUBLIC:
        return bool(row["is_public"] or row["is_featured"]) or _permitted(tx, caller, row["id"])
    return False


def _within(tx: Tx, caller: Caller, domain_id: int) -> bool:
    """Whether a thing given to a domain is offered to the caller: from below it, or as an administrator above it."""
    path = _path(tx, domain_id)
    return caller.domain_path.startswith(path) or (
        caller.role in _SUBTREE_ROLES and path.startswith(caller.domain_path)
    )


def _permitted(tx: Tx, caller: Caller, template_id: int) -> bool:
    found = select(template_permission.c.account_id).where(
        template_permission.c.template_id == template_id, template_permission.c.account_id == caller.account_id
    )
    return tx.scalar(found) is not None


def _owner_of_vm(tx: Tx, vm_id: int) -> tuple[int | None, int | None]:
    row = tx.one(select(vm.c.account_id, vm.c.domain_id).where(vm.c.id == vm_id))
    return (None, None) if row is None else (row["account_id"], row["domain_id"])


def _path(tx: Tx, domain_id: int) -> str:
    row = rows.one(tx, domains, id=domain_id)
    if row is None:
        raise ParameterError("there is no such domain", parameter="domainid")
    return str(row["path"])


def named_account(tx: Tx, caller: Caller, name: str, domain_id: int | None) -> RowMapping:
    """The live account of this name, in the domain given or the caller's own."""
    where = caller.domain_id if domain_id is None else domain_id
    if not caller.is_admin and caller.role not in _SUBTREE_ROLES:
        if name != caller.account_name or where != caller.domain_id:
            raise PermissionDenied(f"account {name!r} is not yours")
    elif not may_touch(tx, caller, None, where):
        raise PermissionDenied("this domain is not yours to see")
    found = select(accounts).where(accounts.c.live == 1, accounts.c.domain_id == where, accounts.c.name == name)
    row = tx.one(found if caller.is_admin else found.where(accounts.c.system == 0))
    if row is None:
        raise ParameterError(f"could not find account {name} in domain {_path(tx, where)}", parameter="account")
    return row
