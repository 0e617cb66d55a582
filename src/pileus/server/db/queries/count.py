"""What accounts and domains use of what they may: claims by guarded UPDATE, so no burst of calls passes a limit.

Rows are always taken in one order (the account, its domain, then each ancestor up to ROOT), so claims never deadlock.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.page import Lookup
from pileus.server.db.tables.account import account, domain, resource_count
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import UNLIMITED, Resource
from pileus.server.domain.errors import LimitExceeded, ResourceInUse

ACCOUNT, DOMAIN = "account", "domain"

_NOUNS = {
    Resource.INSTANCE: "virtual machines",
    Resource.PUBLIC_IP: "public IP addresses",
    Resource.VOLUME: "volumes",
    Resource.SNAPSHOT: "snapshots",
    Resource.TEMPLATE: "templates",
}


class Count(NamedTuple):
    """What one owner uses of one resource. `maximum` -1 means unlimited."""

    used: int
    maximum: int

    @property
    def available(self) -> int:
        """What may still be claimed, never negative; -1 for unlimited."""
        return UNLIMITED if self.maximum == UNLIMITED else max(0, self.maximum - self.used)


def claim(tx: Tx, account_id: int, resource: Resource, n: int = 1) -> None:
    """Count `n` more for the account and for every domain above it; `LimitExceeded` if any of them has no room.

    On an error the transaction must be rolled back: part of the owners may have been counted already.
    """
    for owner, owner_id in _chain(tx, account_id):
        if _add(tx, owner, owner_id, resource, n):
            continue
        found = of(tx, owner, owner_id).get(resource)
        if found is None:
            if owner == ACCOUNT and tx.scalar(select(account.c.live).where(account.c.id == owner_id)) is None:
                # It was removed after this call was let in.
                raise ResourceInUse("the account is being deleted")
            open_counts(tx, owner, owner_id, {resource: UNLIMITED})
            _add(tx, owner, owner_id, resource, n)
            continue
        raise LimitExceeded(
            f"the limit of {found.maximum} {_NOUNS[resource]} for {owner} {_name(tx, owner, owner_id)}"
            f" would be exceeded: {found.used} in use, {n} more asked for"
        )


def release(tx: Tx, account_id: int, resource: Resource, n: int = 1) -> None:
    """Give `n` back, on the account and every domain above it; a count never falls below 0."""
    for owner, owner_id in _chain(tx, account_id):
        whose = {"the_owner": owner, "the_owner_id": owner_id, "the_resource": int(resource)}
        if _FEWER.changed(tx, **whose, n=n) == 0:
            _NONE.changed(tx, **whose)


def open_counts(tx: Tx, owner: str, owner_id: int, maximums: Mapping[Resource, int]) -> None:
    """Make the rows of a new account or domain (`owner` is "account" or "domain"); existing rows stay as they are."""
    for resource, maximum in maximums.items():
        known = select(resource_count.c.used).where(_matches(owner, owner_id, resource))
        if tx.scalar(known) is not None:
            continue
        try:
            with tx.connection.begin_nested():
                tx.execute(
                    insert(resource_count).values(
                        owner=owner, owner_id=owner_id, resource=int(resource), used=0, maximum=maximum
                    )
                )
        except IntegrityError:
            continue


def of(tx: Tx, owner: str, owner_id: int) -> dict[Resource, Count]:
    """All counts of one owner."""
    return of_many(tx, owner, [owner_id]).get(owner_id, {})


def of_many(tx: Tx, owner: str, owner_ids: list[int]) -> dict[int, dict[Resource, Count]]:
    """All counts of several owners, in one query."""
    found: dict[int, dict[Resource, Count]] = {}
    for owner_id, resource, used, maximum in _of_owners(owner).rows(tx, owner_ids):
        found.setdefault(owner_id, {})[_RESOURCES[resource]] = Count(used, maximum)
    return found


_RESOURCES = {int(resource): resource for resource in Resource}


@cache
def _of_owners(owner: str) -> Lookup:
    columns = (resource_count.c.resource, resource_count.c.used, resource_count.c.maximum)
    return Lookup(resource_count.c.owner_id, *columns, where=[resource_count.c.owner == owner])


def limit(tx: Tx, owner: str, owner_id: int, resource: Resource, maximum: int) -> None:
    """Set a limit by hand; -1 for none. Use above the new limit stays, but nothing more can be claimed."""
    open_counts(tx, owner, owner_id, {resource: maximum})
    statement = update(resource_count).where(_matches(owner, owner_id, resource))
    tx.execute(statement.values(maximum=maximum, explicit=1))


def default_limit(tx: Tx, resource: Resource, maximum: int, *, exempt_types: tuple[int, ...]) -> None:
    """Let a changed default reach every account whose limit nobody set, but for accounts of `exempt_types`."""
    exempt = select(account.c.id).where(or_(account.c.type.in_(exempt_types), account.c.system == 1))
    tx.execute(
        update(resource_count)
        .where(
            resource_count.c.owner == ACCOUNT,
            resource_count.c.resource == int(resource),
            resource_count.c.explicit == 0,
            resource_count.c.owner_id.not_in(exempt),
        )
        .values(maximum=maximum)
    )


def hold(tx: Tx, owner: str, owner_id: int, resource: Resource) -> None:
    """Let nobody claim or release until this transaction ends: for a recount."""
    open_counts(tx, owner, owner_id, {resource: UNLIMITED})
    tx.execute(update(resource_count).where(_matches(owner, owner_id, resource)).values(used=resource_count.c.used))


def put(tx: Tx, owner: str, owner_id: int, resource: Resource, used: int) -> None:
    """Correct a count that is held to what a recount found."""
    tx.execute(update(resource_count).where(_matches(owner, owner_id, resource)).values(used=used))


def drop(tx: Tx, owner: str, owner_id: int) -> None:
    """Forget the counts of an owner that is gone."""
    tx.execute(resource_count.delete().where(resource_count.c.owner == owner, resource_count.c.owner_id == owner_id))


def _add(tx: Tx, owner: str, owner_id: int, resource: Resource, n: int) -> bool:
    return _ADDING.changed(tx, the_owner=owner, the_owner_id=owner_id, the_resource=int(resource), n=n) == 1


_MORE = resource_count.c.used + bindparam("n", type_=BigInteger)

_ONE = update(resource_count).where(
    resource_count.c.owner == bindparam("the_owner"),
    resource_count.c.owner_id == bindparam("the_owner_id"),
    resource_count.c.resource == bindparam("the_resource"),
)

_ADDING = Prepared(
    _ONE.where(or_(resource_count.c.maximum == UNLIMITED, resource_count.c.maximum >= _MORE)).values(used=_MORE)
)

_N = bindparam("n", type_=BigInteger)

_FEWER = Prepared(_ONE.where(resource_count.c.used >= _N).values(used=resource_count.c.used - _N))

_NONE = Prepared(_ONE.values(used=0))


def _matches(owner: str, owner_id: int, resource: Resource) -> ColumnElement[bool]:
    return and_(
        resource_count.c.owner == owner,
        resource_count.c.owner_id == owner_id,
        resource_count.c.resource == int(resource),
    )


def _chain(tx: Tx, account_id: int) -> list[tuple[str, int]]:
    known: list[tuple[str, int]] | None = tx.memo.get(f"count.chain:{account_id}")
    if known is None:
        known = [(ACCOUNT, account_id), *((DOMAIN, int(i)) for i in _ABOVE.scalars(tx, account_id=account_id))]
        tx.memo[f"count.chain:{account_id}"] = known
    return known


def _above() -> Select[Any]:
    """The domain of an account and all above it, ROOT last."""
    columns = (domain.c.id, domain.c.parent_id, domain.c.level)
    own = select(account.c.domain_id).where(account.c.id == bindparam("account_id")).scalar_subquery()
    tree = select(*columns).where(domain.c.id == own).cte("tree", recursive=True)
    tree = tree.union_all(select(*columns).join(tree, domain.c.id == tree.c.parent_id))
    return select(tree.c.id).order_by(tree.c.level.desc())


_ABOVE = Prepared(_above())


def _name(tx: Tx, owner: str, owner_id: int) -> str:
    column = account.c.name if owner == ACCOUNT else domain.c.path
    table = account if owner == ACCOUNT else domain
    return str(tx.scalar(select(column).where(table.c.id == owner_id)))
