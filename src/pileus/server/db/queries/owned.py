"""What is really there: the rows that limits count."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, Select, Table, func, select

from pileus.server.db.tables.account import account, domain, resource_count
from pileus.server.db.tables.network import public_ip, vlan_ip_range
from pileus.server.db.tables.template import template
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Resource
from pileus.server.domain.vm import VmKind, VmState

_GONE = [str(VmState.DESTROYED), str(VmState.EXPUNGING), str(VmState.ERROR)]
_PUBLIC_RANGES = select(vlan_ip_range.c.id).where(vlan_ip_range.c.for_virtual_network == 1)

_COUNTED: Mapping[Resource, tuple[Table, tuple[ColumnElement[bool], ...]]] = {
    Resource.INSTANCE: (vm, (vm.c.kind == str(VmKind.USER), vm.c.state.not_in(_GONE))),
    Resource.VOLUME: (volume, ()),
    # An address of a Direct network comes with its guest and counts for nothing.
    Resource.PUBLIC_IP: (public_ip, (public_ip.c.range_id.in_(_PUBLIC_RANGES),)),
    Resource.TEMPLATE: (template, ()),
}


def by_account(tx: Tx, account_id: int, resource: Resource) -> int:
    """How many an account has."""
    return _count(tx, select(account.c.id).where(account.c.id == account_id), resource)


def by_domain(tx: Tx, path: str, resource: Resource) -> int:
    """How many all accounts of a domain and of those below it have."""
    inside = select(domain.c.id).where(func.substr(domain.c.path, 1, len(path)) == path)
    return _count(tx, select(account.c.id).where(account.c.domain_id.in_(inside)), resource)


def _count(tx: Tx, accounts: Select[tuple[int]], resource: Resource) -> int:
    if resource not in _COUNTED:
        return 0
    table, extra = _COUNTED[resource]
    found = select(func.count()).select_from(table).where(table.c.live == 1, table.c.account_id.in_(accounts), *extra)
    return int(tx.scalar(found))


def by_owner(tx: Tx, owner: str, owner_id: int, resource: Resource) -> int | None:
    """How many an account or a domain with all below it has; None for an owner that is gone."""
    table = account if owner == "account" else domain
    row = tx.one(select(table).where(table.c.id == owner_id, table.c.live == 1))
    if row is None:
        return None
    return by_account(tx, owner_id, resource) if owner == "account" else by_domain(tx, row["path"], resource)


def differing(tx: Tx) -> list[tuple[str, int, Resource]]:
    """Owners whose count is not what they have, in a number of queries that does not grow with them."""
    homes = {row["id"]: row["domain_id"] for row in tx.all(select(account.c.id, account.c.domain_id))}
    above = {row["id"]: row["parent_id"] for row in tx.all(select(domain.c.id, domain.c.parent_id))}
    there: dict[tuple[str, int, int], int] = {}
    for resource, (table, extra) in _COUNTED.items():
        found = select(table.c.account_id, func.count().label("n")).where(table.c.live == 1, *extra)
        for row in tx.all(found.where(table.c.account_id.is_not(None)).group_by(table.c.account_id)):
            there["account", row["account_id"], int(resource)] = int(row["n"])
            home = homes.get(row["account_id"])
            while home is not None:
                key = ("domain", home, int(resource))
                there[key] = there.get(key, 0) + int(row["n"])
                home = above[home]
    counted = {
        (row["owner"], row["owner_id"], row["resource"]): int(row["used"])
        for row in tx.all(select(resource_count))
        if Resource(row["resource"]) in _COUNTED
    }
    wrong = [key for key in counted.keys() | there.keys() if counted.get(key, 0) != there.get(key, 0)]
    return [(owner, owner_id, Resource(number)) for owner, owner_id, number in sorted(wrong)]
