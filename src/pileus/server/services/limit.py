"""Limits of accounts and domains, and counts against them. Guide: "Limits"."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from pileus.server import events
from pileus.server.auth import visibility
from pileus.server.db.queries import account as accounts
from pileus.server.db.queries import count, owned
from pileus.server.db.queries import domain as domains
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import UNLIMITED, Resource
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import InternalError, ParameterError, PermissionDenied
from pileus.server.services.paging import bounds
from pileus.server.services.privilege import require_over


@dataclass(frozen=True)
class Subject:
    """An account, or with `account` None a domain."""

    account: RowMapping | None
    domain: RowMapping

    @property
    def owner(self) -> tuple[str, int]:
        """As counts name it."""
        if self.account is None:
            return count.DOMAIN, int(self.domain["id"])
        return count.ACCOUNT, int(self.account["id"])

    @property
    def told(self) -> str:
        """As events name it."""
        where = f"domain {self.domain['path']}"
        return where if self.account is None else f"account {self.account['name']} of {where}"


def update(
    tx: Tx, caller: Caller, *, account: str | None, domain_id: int | None, resource_type: int, maximum: int | None
) -> dict[str, Any]:
    """Set a limit of an account, or with only `domain_id` of a domain and all below it; without `maximum`, none."""
    resource = _resource(resource_type)
    new = UNLIMITED if maximum is None else maximum
    if new < UNLIMITED:
        raise ParameterError("max is a number from 0, or -1 for no limit", parameter="max")
    subject = _subject(tx, caller, account, domain_id)
    if subject.account is not None:
        require_over(tx, caller, subject.account)
    elif not caller.is_admin and subject.domain["id"] == caller.domain_id:
        raise PermissionDenied("the limits of your own domain are set from above it")
    count.limit(tx, *subject.owner, resource, new)
    events.record_by(
        tx,
        caller,
        events.types.RESOURCE_LIMIT_UPDATE,
        f"limit of {_noun(resource)} of {subject.told} set to {'any number' if new == UNLIMITED else new}",
    )
    return _limit(subject, resource, new)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    account: str | None,
    domain_id: int | None,
    resource_type: int | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Limits of an account, the caller's own unless given, or with only `domain_id` of a domain."""
    wanted = list(Resource) if resource_type is None else [_resource(resource_type)]
    if account is None and domain_id is None:
        mine = accounts.by_id(tx, caller.account_id)
        subject = Subject(mine, _domain(tx, caller.domain_id))
    else:
        subject = _subject(tx, caller, account, domain_id)
    found = count.of(tx, *subject.owner)
    none = count.Count(0, UNLIMITED)
    views = [_limit(subject, resource, found.get(resource, none).maximum) for resource in wanted]
    offset, limit = bounds(tx, page, page_size)
    return views[offset : offset + limit], len(views)


def recount(
    tx: Tx, caller: Caller, *, account: str | None, domain_id: int, resource_type: int | None
) -> list[dict[str, Any]]:
    """Count again what an account or a domain has, and correct what was counted."""
    wanted = list(Resource) if resource_type is None else [_resource(resource_type)]
    subject = _subject(tx, caller, account, domain_id)
    views = []
    for resource in wanted:
        count.hold(tx, *subject.owner, resource)
        if subject.account is not None:
            used = owned.by_account(tx, subject.account["id"], resource)
        else:
            used = owned.by_domain(tx, subject.domain["path"], resource)
        count.put(tx, *subject.owner, resource, used)
        views.append({**_named(subject), "resource_type": str(int(resource)), "resource_count": used})
    return views


def _subject(tx: Tx, caller: Caller, account: str | None, domain_id: int | None) -> Subject:
    if account is None:
        if domain_id is None:
            raise ParameterError("account or domainid is required", parameter="account")
        visibility.require(tx, caller, None, domain_id, "this domain")
        return Subject(None, _domain(tx, domain_id))
    found = visibility.named_account(tx, caller, account, domain_id)
    return Subject(found, _domain(tx, found["domain_id"]))


def _domain(tx: Tx, domain_id: int) -> RowMapping:
    row = domains.by_id(tx, domain_id)
    if row is None:
        raise InternalError("an account without a domain")
    return row


def _resource(number: int) -> Resource:
    try:
        return Resource(number)
    except ValueError:
        allowed = ", ".join(f"{int(one)} ({_noun(one)})" for one in Resource)
        raise ParameterError(f"resourcetype is one of {allowed}", parameter="resourcetype") from None


def _noun(resource: Resource) -> str:
    return resource.name.lower().replace("_", " ")


def _limit(subject: Subject, resource: Resource, maximum: int) -> dict[str, Any]:
    return {**_named(subject), "resource_type": str(int(resource)), "max": maximum}


def _named(subject: Subject) -> dict[str, Any]:
    return {
        "account": None if subject.account is None else subject.account["name"],
        "domain_id": subject.domain["uuid"],
        "domain": subject.domain["name"],
    }
