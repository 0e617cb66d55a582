"""What is really there: the rows that limits count."""

from collections.abc import Mapping

from sqlalchemy import ColumnElement, Select, Table, func, select

from pileus.server.db.tables.account import account, domain
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
