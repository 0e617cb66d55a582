"""Events as they are listed."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, RowMapping, select

from pileus.server.db.queries.page import page
from pileus.server.db.tables.account import account, domain, users
from pileus.server.db.tables.event import event
from pileus.server.db.transaction import Tx


def list_page(tx: Tx, where: list[ColumnElement[bool]], *, offset: int, limit: int) -> tuple[list[RowMapping], int]:
    """Events, newest first, and the number of all matches."""
    return page(tx, event, where, offset=offset, limit=limit, order_by=(event.c.id.desc(),))


def without_end(tx: Tx, *, before: int) -> ColumnElement[bool]:
    """Condition: events of jobs announced up to an instant that have no COMPLETED event yet."""
    ended = event.alias("ended")
    is_over = select(ended.c.id).where(ended.c.start_id == event.c.id, ended.c.state == "Completed").exists()
    return (event.c.state == "Scheduled") & (event.c.created_at <= before) & ~is_over


def people(
    tx: Tx, user_ids: Collection[int], account_ids: Collection[int], domain_ids: Collection[int]
) -> tuple[dict[int, RowMapping], dict[int, RowMapping], dict[int, RowMapping]]:
    """Users, accounts and domains by key, removed ones too: history outlives them."""
    return (
        {row["id"]: row for row in tx.all(select(users.c.id, users.c.username).where(users.c.id.in_(user_ids)))},
        {row["id"]: row for row in tx.all(select(account.c.id, account.c.name).where(account.c.id.in_(account_ids)))},
        {row["id"]: row for row in tx.all(select(domain).where(domain.c.id.in_(domain_ids)))},
    )


def uuids(tx: Tx, event_ids: Collection[int]) -> dict[int, str]:
    """UUIDs of events by key."""
    return {row["id"]: row["uuid"] for row in tx.all(select(event.c.id, event.c.uuid).where(event.c.id.in_(event_ids)))}
