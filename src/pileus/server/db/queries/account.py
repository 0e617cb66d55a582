"""Accounts, and what they own."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, Table, delete, func, insert, select, update

from pileus.server.db import rows
from pileus.server.db.dialect import among, as_parameter
from pileus.server.db.queries.page import page
from pileus.server.db.tables.account import account
from pileus.server.db.tables.network import network, public_ip
from pileus.server.db.tables.template import template, template_permission
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import AccountState

_OWNED: tuple[tuple[str, Table, tuple[ColumnElement[bool], ...]], ...] = (
    ("virtual machines", vm, (vm.c.kind == "User",)),
    ("volumes", volume, ()),
    ("networks", network, ()),
    ("public IP addresses", public_ip, ()),
    ("templates", template, ()),
)


def by_id(tx: Tx, account_id: int) -> RowMapping | None:
    """The live account."""
    return tx.one(select(account).where(account.c.id == account_id, account.c.live == 1))


def any_by_id(tx: Tx, account_id: int) -> RowMapping | None:
    """The account, removed or not."""
    return tx.one(select(account).where(account.c.id == account_id))


def named(tx: Tx, domain_id: int, name: str) -> RowMapping | None:
    """The live account of this name in a domain."""
    return tx.one(select(account).where(account.c.domain_id == domain_id, account.c.name == name, account.c.live == 1))


def of_domains(tx: Tx, domain_ids: Collection[int]) -> list[RowMapping]:
    """Live accounts of domains."""
    return tx.all(select(account).where(account.c.live == 1, account.c.domain_id.in_(domain_ids)))


def keys_where(condition: ColumnElement[bool]) -> Select[Any]:
    """A subquery: keys of the accounts that meet a condition."""
    return select(account.c.id).where(condition)


def list_page(tx: Tx, where: list[ColumnElement[bool]], *, offset: int, limit: int) -> tuple[list[RowMapping], int]:
    """Live accounts that no cloud made for itself, and the number of all matches."""
    return page(tx, account, [account.c.live == 1, account.c.system == 0, *where], offset=offset, limit=limit)


def add(tx: Tx, **values: Any) -> int:
    """Insert an account; returns its key."""
    return tx.insert(insert(account).values(created_at=tx.now, **values))


def change(tx: Tx, account_id: int, **values: Any) -> None:
    """Change columns of an account."""
    tx.execute(update(account).where(account.c.id == account_id).values(**values))


def remove(tx: Tx, account_id: int) -> None:
    """Remove an account: the row stays for history, its name is free."""
    change(tx, account_id, live=None, state=str(AccountState.REMOVED), removed_at=tx.now)


def belongings(tx: Tx, account_id: int) -> dict[str, int]:
    """How many things of each sort an account still owns; sorts without any are left out."""
    counts = {
        noun: int(
            tx.scalar(
                select(func.count())
                .select_from(table)
                .where(table.c.live == 1, table.c.account_id == account_id, *extra)
            )
        )
        for noun, table, extra in _OWNED
    }
    return {noun: n for noun, n in counts.items() if n}


def guests(tx: Tx, account_id: int, states: Collection[str] = ()) -> list[int]:
    """Keys of the account's guests, if states are given only of those in one of them."""
    found = select(vm.c.id).where(vm.c.live == 1, vm.c.kind == "User", vm.c.account_id == account_id)
    if states:
        found = found.where(vm.c.state.in_(states))
    return [int(i) for i in tx.execute(found.order_by(vm.c.id)).scalars()]


def templates(tx: Tx, account_id: int) -> list[int]:
    """Keys of the account's templates."""
    found = select(template.c.id).where(template.c.live == 1, template.c.account_id == account_id)
    return [int(i) for i in tx.execute(found.order_by(template.c.id)).scalars()]


def drop_rights(tx: Tx, account_id: int) -> None:
    """Forget whose private templates the account may use."""
    tx.execute(delete(template_permission).where(template_permission.c.account_id == account_id))


def unfinished(tx: Tx, state: AccountState) -> list[RowMapping]:
    """Live accounts in a state whose clean-up has not come to its end."""
    return rows.every(tx, account, live=1, state=str(state), cleanup_required=1)


def guest_states(tx: Tx, account_ids: Collection[int]) -> dict[int, dict[str, int]]:
    """How many guests of each account are in each state."""
    counts: dict[int, dict[str, int]] = {}
    found = (
        select(vm.c.account_id, vm.c.state, func.count().label("n"))
        .where(vm.c.live == 1, vm.c.kind == "User", among(vm.c.account_id, tx.connection.dialect.name))
        .group_by(vm.c.account_id, vm.c.state)
    )
    for row in tx.execute(found, {"keys": as_parameter(account_ids, tx.connection.dialect.name)}):
        counts.setdefault(int(row.account_id), {})[str(row.state)] = int(row.n)
    return counts
