"""Rows by their keys, many at once: the values that were stored, on every database."""

import pytest
from sqlalchemy import select, update

from pileus.server.db import rows
from pileus.server.db.queries import page
from pileus.server.db.queries.page import Lookup
from pileus.server.db.tables.account import domain
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host_stats
from pileus.server.db.transaction import Database, Tx
from pileus.testing.client import counted_statements
from pileus.testing.world import World

EVENTS = Lookup(event.c.id, event.c.description.label("said"), event.c.zone_id, event.c.user_id, in_order=True)


def said(tx: Tx, description: str, **values: int) -> int:
    given = {
        "type": "T",
        "level": "INFO",
        "state": "Completed",
        "account_id": 1,
        "domain_id": 1,
        "user_id": 1,
        **values,
    }
    return rows.add(tx, event, description=description, created_at=tx.now, **given)


@pytest.mark.parametrize("at_once", [2, 10_000])
def test_values_come_as_they_were_stored_in_order_of_keys(
    db: Database, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(page, "_AT_ONCE", at_once)
    texts = ["plain", 'quoted "\\" \n\t', "\u00e9\u2028\U0001f600", "", "[1, null]"]
    if db.is_sqlite:
        texts.append("before\x00behind")
    with db.write() as tx:
        keys = [said(tx, text, user_id=2**62 + n) for n, text in enumerate(texts)]
        found = EVENTS.rows(tx, [*reversed(keys), keys[0], None, 10**9])
    assert found == [(key, text, None, 2**62 + n) for n, (key, text) in enumerate(zip(keys, texts, strict=True))]
    assert EVENTS.place == {"said": 1, "zone_id": 2, "user_id": 3}


def test_no_key_asks_nothing(db: Database) -> None:
    with db.read() as tx, counted_statements(db) as seen:
        assert EVENTS.rows(tx, [None]) == []
        assert EVENTS.by_key(tx, []) == {}
    assert not [text for text in seen if "FROM event" in text]


def test_columns_of_joined_tables_are_none_where_there_is_no_row(db: Database) -> None:
    parent = domain.alias("parent")
    lookup = Lookup(
        domain.c.id,
        parent.c.name.label("parent"),
        source=domain.outerjoin(parent, parent.c.id == domain.c.parent_id),
        where=[domain.c.live == 1],
    )
    with db.read() as tx:
        root = tx.one(select(domain).where(domain.c.parent_id.is_(None)))
        assert root is not None
        assert lookup.by_key(tx, [root["id"]]) == {root["id"]: (root["id"], None)}


def test_numbers_with_a_fraction_keep_it(world: World) -> None:
    cloud = world.cloud()
    used = 12.345678901234
    with world.db.write() as tx:
        mine = update(host_stats).where(host_stats.c.host_id == cloud.hosts[0])
        tx.execute(mine.values(cpu_used=used, load_average=2.0))
        lookup = Lookup(host_stats.c.host_id, host_stats.c.cpu_used, host_stats.c.load_average)
        ((_, cpu_used, load),) = lookup.rows(tx, [cloud.hosts[0]])
    assert isinstance(load, float)
    assert (round(cpu_used, 4), load) == (round(used, 4), 2.0)
