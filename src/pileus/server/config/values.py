"""The values in force: stored text over defaults, cached while the settings' generation stands."""

from typing import Any, TypeVar

import structlog
from sqlalchemy import delete, insert, select, update

from pileus.server.config.key import Key
from pileus.server.db.generation import Cached, bump
from pileus.server.db.tables.setting import setting, setting_change
from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import ParameterError

_log = structlog.get_logger(__name__)

_GENERATION = "setting"
_LONGEST = 4096

T = TypeVar("T", bool, int, float, str)


def _load(tx: Tx) -> dict[str, str]:
    return {str(row["name"]): str(row["value"]) for row in tx.all(select(setting)) if row["value"] is not None}


_stored = Cached(_GENERATION, _load)


def value(tx: Tx, key: Key[T]) -> T:
    """The value of a setting as of this unit of work."""
    stored = _stored.get(tx).get(key.name)
    if stored is None:
        return key.default
    try:
        return key.read(stored)
    except ParameterError:
        _log.warning("setting has an unusable value, its default is in force", setting=key.name)
        return key.default


def text_of(tx: Tx, key: Key[Any]) -> str:
    """The value as text, as it is stored and shown. Secrets too: the caller decides who may see it."""
    return _stored.get(tx).get(key.name, key.default_text)


def change(tx: Tx, key: Key[Any], new: str | None, *, user_id: int) -> None:
    """Check and store a value (None: the default again) and who changed it; the history of a secret holds no value."""
    if new is not None:
        if len(new) > _LONGEST:
            raise ParameterError(f"{key.name} is longer than {_LONGEST} characters", parameter="value")
        key.read(new)
    old = _stored.get(tx).get(key.name)
    if new is None:
        tx.execute(delete(setting).where(setting.c.name == key.name))
    else:
        values = {"value": new, "changed_at": tx.now}
        if tx.execute(update(setting).where(setting.c.name == key.name).values(values)).rowcount == 0:
            tx.execute(insert(setting).values(name=key.name, **values))
    tx.execute(
        insert(setting_change).values(
            name=key.name,
            old_value=None if key.secret else old,
            new_value=None if key.secret else new,
            user_id=user_id,
            changed_at=tx.now,
        )
    )
    bump(tx, _GENERATION)
