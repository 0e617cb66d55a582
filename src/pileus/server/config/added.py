"""Settings that administrators' own tools keep here: text that nothing in the cloud obeys."""

from typing import Any

from sqlalchemy import insert, select

from pileus.server.config.key import Key
from pileus.server.db.generation import Cached, bump
from pileus.server.db.tables.setting import setting_added
from pileus.server.db.transaction import Tx

_GENERATION = "setting_added"


def _load(tx: Tx) -> dict[str, Key[Any]]:
    return {
        str(row["name"]): Key(str(row["name"]), str(row["value"]), str(row["category"]), str(row["description"]), str)
        for row in tx.all(select(setting_added))
    }


_added = Cached(_GENERATION, _load)


def added(tx: Tx) -> dict[str, Key[Any]]:
    """The settings that were added, by name; the value they were added with is their default."""
    return _added.get(tx)


def add(tx: Tx, *, name: str, category: str, component: str, instance: str, description: str, initial: str) -> Key[Any]:
    """Keep one more. The caller has checked that the name is free."""
    tx.execute(
        insert(setting_added).values(
            name=name,
            category=category,
            component=component,
            instance=instance,
            description=description,
            value=initial,
            created_at=tx.now,
        )
    )
    bump(tx, _GENERATION)
    return Key(name, initial, category, description, str)
