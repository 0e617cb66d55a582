"""Settings as administrators see and change them."""

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, RowMapping

from pileus.server import events
from pileus.server.auth import authenticators
from pileus.server.config import Key, add, added, change, every, is_used, keys, text_of
from pileus.server.config.key import HIDDEN
from pileus.server.db.queries import count
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.tables.account import account, users
from pileus.server.db.tables.setting import setting_change
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.services import system_template
from pileus.server.services.account import LIMIT_KEYS
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds

_NEW_NAME = re.compile(r"(?=.{1,255}\Z)[a-z0-9_-]+(\.[a-z0-9_-]+)*")

_RESOURCES = {key.name: resource for resource, key in LIMIT_KEYS.items()}


def list_page(
    tx: Tx,
    *,
    category: str | None,
    name: str | None,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Settings by name; hidden ones are not told, nor the values of secret ones."""
    known = every | added(tx)
    categories = _categories(tx)
    if category is not None and category.lower() not in map(str.lower, categories):
        raise ParameterError(f"category is one of {', '.join(categories)}; got {category!r}", parameter="category")
    found = [
        key
        for key in sorted(known.values(), key=lambda key: key.name)
        if key.category != HIDDEN
        and (category is None or key.category.lower() == category.lower())
        and (name is None or key.name == name)
        and (not keyword or keyword.lower() in key.name.lower())
    ]
    offset, limit = bounds(tx, page_number, page_size)
    return [_view(tx, key) for key in found[offset : offset + limit]], len(found)


def create(
    tx: Tx,
    caller: Caller,
    *,
    name: str,
    category: str,
    component: str,
    instance: str,
    value: str | None,
    description: str | None,
) -> dict[str, Any]:
    """A setting that nothing here obeys, kept for the tools of administrators. 431 for a name that is taken or bad."""
    if not _NEW_NAME.fullmatch(name):
        raise ParameterError(
            f"name is words of a-z, 0-9, - and _, joined by points, of at most 255 characters; got {name[:255]!r}",
            parameter="name",
        )
    if name in every or name in added(tx):
        raise ParameterError(f"there is a setting {name} already: updateConfiguration changes it", parameter="name")
    if category.lower() == HIDDEN.lower():
        raise ParameterError("category Hidden is of the cloud itself", parameter="category")
    for given, parameter in ((category, "category"), (component, "component"), (instance, "instance")):
        checked_name(given, parameter)
    key = add(
        tx,
        name=name,
        # One category under one spelling.
        category=next((known for known in _categories(tx) if known.lower() == category.lower()), category),
        component=component,
        instance=instance,
        description=description or "",
        initial=value or "",
    )
    _record(tx, caller, f"Setting {name} added with value {value or ''}")
    return _view(tx, key)


def update(tx: Tx, caller: Caller, *, name: str, value: str | None) -> dict[str, Any]:
    """Change a setting, live on every server; without a value, back to its default. 431 if it cannot have the value."""
    key = _named(tx, name)
    if key is keys.user_authenticators_order and value is not None:
        authenticators.check_order(value)
    if key is keys.router_template_id:
        value = system_template.become(tx, caller, value)
    change(tx, key, value, user_id=caller.user_id)
    resource = _RESOURCES.get(name)
    if resource is not None:
        count.default_limit(tx, resource, int(text_of(tx, key)), exempt_types=(int(AccountType.ADMIN),))
    _record(tx, caller, f"Value of setting {name} changed" + ("" if key.secret else f" to {text_of(tx, key)}"))
    return _view(tx, key)


def changes_page(
    tx: Tx,
    *,
    name: str | None,
    start: int | None,
    end: int | None,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Who changed what and when, newest first; values of secret settings were never kept."""
    where: list[ColumnElement[bool]] = []
    if name is not None:
        _named(tx, name)
        where.append(setting_change.c.name == name)
    if start is not None:
        where.append(setting_change.c.changed_at >= start)
    if end is not None:
        where.append(setting_change.c.changed_at <= end)
    if keyword:
        where.append(like(setting_change.c.name, keyword))
    offset, limit = bounds(tx, page_number, page_size)
    newest_first = (setting_change.c.id.desc(),)
    rows, total = page(tx, setting_change, where, offset=offset, limit=limit, order_by=newest_first)
    people = related(tx, users, (row["user_id"] for row in rows))
    accounts = related(tx, account, (person["account_id"] for person in people.values()))
    return [_change(row, people.get(row["user_id"]), accounts) for row in rows], total


def _categories(tx: Tx) -> list[str]:
    return sorted({key.category for key in (every | added(tx)).values()} - {HIDDEN})


def _named(tx: Tx, name: str) -> Key[Any]:
    key = every.get(name) or added(tx).get(name)
    if key is None:
        raise ParameterError(f"there is no setting {name}", parameter="name")
    return key


def _record(tx: Tx, caller: Caller, description: str) -> None:
    events.record_by(tx, caller, events.types.CONFIGURATION_VALUE_EDIT, description)


def _change(row: RowMapping, person: RowMapping | None, accounts: Mapping[int, RowMapping]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "old_value": row["old_value"],
        "new_value": row["new_value"],
        "user_id": person["uuid"] if person else None,
        "username": person["username"] if person else None,
        "account": accounts[person["account_id"]]["name"] if person else None,
        "changed": row["changed_at"],
    }


def _view(tx: Tx, key: Key[Any]) -> dict[str, Any]:
    text = text_of(tx, key)
    return {
        "name": key.name,
        "category": key.category,
        "value": None if key.secret or text == "" else text,
        "default_value": None if key.secret else key.default_text,
        "description": key.description if is_used(key.name) else f"{key.description} (accepted, without effect)",
    }
