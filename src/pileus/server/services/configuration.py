"""Settings as administrators see and change them."""

from typing import Any

from pileus.server import events
from pileus.server.config import Key, change, every, is_used, text_of
from pileus.server.config.key import HIDDEN
from pileus.server.db.queries import count
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.services.account import LIMIT_KEYS
from pileus.server.services.paging import bounds

_RESOURCES = {key.name: resource for resource, key in LIMIT_KEYS.items()}


def list_page(
    tx: Tx, *, category: str | None, name: str | None, keyword: str | None, page: int | None, page_size: int | None
) -> tuple[list[dict[str, Any]], int]:
    """Settings by name; hidden ones are not told, nor the values of secret ones."""
    found = [
        key
        for key in sorted(every.values(), key=lambda key: key.name)
        if key.category != HIDDEN
        and (category is None or key.category.lower() == category.lower())
        and (name is None or key.name == name)
        and (not keyword or keyword.lower() in key.name.lower())
    ]
    offset, limit = bounds(tx, page, page_size)
    return [_view(tx, key) for key in found[offset : offset + limit]], len(found)


def update(tx: Tx, caller: Caller, *, name: str, value: str | None) -> dict[str, Any]:
    """Change a setting, live on every server; without a value, back to its default. 431 if it cannot have the value."""
    key = every.get(name)
    if key is None:
        raise ParameterError(f"there is no setting {name}", parameter="name")
    change(tx, key, value, user_id=caller.user_id)
    resource = _RESOURCES.get(name)
    if resource is not None:
        count.default_limit(tx, resource, int(text_of(tx, key)), exempt_types=(int(AccountType.ADMIN),))
    events.record(
        tx,
        type=events.types.CONFIGURATION_VALUE_EDIT,
        description=f"Value of setting {name} changed" + ("" if key.secret else f" to {text_of(tx, key)}"),
        account_id=caller.account_id,
        domain_id=caller.domain_id,
        user_id=caller.user_id,
    )
    return _view(tx, key)


def _view(tx: Tx, key: Key[Any]) -> dict[str, Any]:
    text = text_of(tx, key)
    return {
        "name": key.name,
        "category": key.category,
        "value": None if key.secret or text == "" else text,
        "default_value": None if key.secret else key.default_text,
        "description": key.description if is_used(key.name) else f"{key.description} (accepted, without effect)",
    }
