"""Jobs as their owners see them. How they run is the business of `server.jobs`."""

from collections.abc import Collection, Iterable
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Column, ColumnElement, RowMapping, Table, select

from pileus.server.db.dialect import among, as_parameter
from pileus.server.db.queries.page import Lookup, page
from pileus.server.db.tables.account import account, users
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Tx

account_column: Column[Any] = job.c.account_id
domain_column: Column[Any] = job.c.domain_id
created_column: Column[Any] = job.c.created_at
command_column: Column[Any] = job.c.command
is_open: ColumnElement[bool] = job.c.open == 1
is_top_level: ColumnElement[bool] = job.c.parent_id.is_(None)


def by_id(tx: Tx, job_id: int) -> RowMapping | None:
    """The job, open or ended."""
    return tx.one(select(job).where(job.c.id == job_id))


def list_page(tx: Tx, where: list[ColumnElement[bool]], *, offset: int, limit: int) -> tuple[list[RowMapping], int]:
    """Jobs, oldest first, and the number of all matches."""
    return page(tx, job, where, offset=offset, limit=limit)


def pending_of(
    tx: Tx, names: tuple[str, ...], table: Table, uuids: list[str], where: list[ColumnElement[bool]]
) -> dict[str, str]:
    """The UUID of the newest open job of each thing, by the thing's UUID, among the jobs of `where`."""
    found = (
        select(table.c.uuid.label("thing"), job.c.uuid.label("job"))
        .join(table, table.c.id == job.c.instance_id)
        .where(is_open, job.c.instance_kind.in_(names), is_top_level, *where)
        .where(among(table.c.uuid, tx.connection.dialect.name))
        .order_by(job.c.id)
    )
    keys = {"keys": as_parameter(uuids, tx.connection.dialect.name)}
    return {str(row.thing): str(row.job) for row in tx.execute(found, keys)}


def pending_by_key(tx: Tx, names: tuple[str, ...], keys: Iterable[int]) -> list[tuple[int, int, str]]:
    """Key of a thing, key and UUID of an open job on it, for the things of these keys; the newest job last."""
    rows = _open_jobs(names).rows(tx, keys)
    return sorted(((key, job_id, uuid) for key, job_id, uuid, parent in rows if parent is None), key=itemgetter(1))


def among_jobs(tx: Tx, job_ids: Collection[int], where: list[ColumnElement[bool]]) -> set[int]:
    """Which of some jobs are those of `where`."""
    return set(tx.execute(select(job.c.id).where(job.c.id.in_(job_ids), *where)).scalars())


@cache
def _open_jobs(names: tuple[str, ...]) -> Lookup:
    of_kind = job.c.instance_kind.in_(names)
    return Lookup(job.c.instance_id, job.c.id, job.c.uuid, job.c.parent_id, where=[is_open, of_kind])


def owners(tx: Tx, account_ids: set[int], user_ids: set[int]) -> tuple[dict[int, str], dict[int, str]]:
    """UUIDs of accounts and of users, removed ones too."""
    by_account = select(account.c.id, account.c.uuid).where(account.c.id.in_(account_ids))
    by_user = select(users.c.id, users.c.uuid).where(users.c.id.in_(user_ids))
    return (
        {int(row["id"]): str(row["uuid"]) for row in tx.all(by_account)},
        {int(row["id"]): str(row["uuid"]) for row in tx.all(by_user)},
    )


def uuids_in(tx: Tx, table: Table, keys: Collection[int]) -> dict[int, str]:
    """The UUIDs of any rows, removed or not."""
    dialect = tx.connection.dialect.name
    found = select(table.c.id, table.c.uuid).where(among(table.c.id, dialect))
    return {int(row.id): str(row.uuid) for row in tx.execute(found, {"keys": as_parameter(keys, dialect)})}
