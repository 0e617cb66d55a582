"""SSH key pairs: a guest deployed with one lets its holder in. Private keys are told once and never stored."""

from typing import Any

from sqlalchemy import ColumnElement, RowMapping

from pileus.server.auth import visibility
from pileus.server.db.queries import ssh_key as ssh_keys
from pileus.server.db.queries.page import like, related
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.ssh_key import ssh_key_pair
from pileus.server.db.transaction import Tx
from pileus.server.domain import ssh_key
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.ssh_key import PublicKey
from pileus.server.events import record, types
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds


def create(tx: Tx, caller: Caller, *, name: str, account_name: str | None, domain_id: int | None) -> dict[str, Any]:
    """A new key pair; the private key is in the answer, and nowhere else."""
    owner = visibility.owner(tx, caller, account_name, domain_id)
    _check_free(tx, owner, name)
    private, public = ssh_key.generate()
    row = _add(tx, owner, name, public, types.SSH_KEYPAIR_CREATE, "Created")
    return {**_views(tx, [row])[0], "private_key": private}


def register(
    tx: Tx, caller: Caller, *, name: str, public_key: str, account_name: str | None, domain_id: int | None
) -> dict[str, Any]:
    """A key pair whose private half its holder keeps."""
    owner = visibility.owner(tx, caller, account_name, domain_id)
    _check_free(tx, owner, name)
    public = ssh_key.read(public_key, "publickey")
    return _views(tx, [_add(tx, owner, name, public, types.SSH_KEYPAIR_REGISTER, "Registered")])[0]


def delete(tx: Tx, caller: Caller, *, name: str, account_name: str | None, domain_id: int | None) -> None:
    """Forget a key pair; guests deployed with it keep the public key they have."""
    owner = visibility.owner(tx, caller, account_name, domain_id)
    row = _named(tx, owner, name, "name")
    ssh_keys.remove(tx, ssh_key_pair.c.id == row["id"])
    _event(tx, owner, row["id"], types.SSH_KEYPAIR_DELETE, f"Deleted SSH key pair {name}")


def public_key(tx: Tx, owner: Owner, name: str) -> str:
    """The public key that a guest of this account gets. 431 when the account has no pair of this name."""
    return str(_named(tx, owner, name, "keypair")["public_key"])


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    pair_id: int | None,
    name: str | None,
    fingerprint: str | None,
    account_name: str | None,
    domain_id: int | None,
    list_all: bool | None,
    is_recursive: bool | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Key pairs in the caller's scope."""
    scope = visibility.scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=pair_id is not None,
        tx=tx,
    )
    where: list[ColumnElement[bool]] = scope.where(ssh_key_pair.c.account_id, ssh_key_pair.c.domain_id)
    if pair_id is not None:
        where.append(ssh_key_pair.c.id == pair_id)
    if name is not None:
        where.append(ssh_key_pair.c.name == name)
    if fingerprint is not None:
        where.append(ssh_key_pair.c.fingerprint == fingerprint.lower())
    if keyword:
        where.append(like(ssh_key_pair.c.name, keyword))
    offset, limit = bounds(tx, page, page_size)
    rows, total = ssh_keys.list_page(tx, where, offset=offset, limit=limit)
    return _views(tx, rows), total


def _named(tx: Tx, owner: Owner, name: str, parameter: str) -> RowMapping:
    row = ssh_keys.named(tx, owner.account_id, name)
    if row is None:
        raise ParameterError(f"the account has no SSH key pair {name}", parameter=parameter)
    return row


def _check_free(tx: Tx, owner: Owner, name: str) -> None:
    checked_name(name, "name")
    if ssh_keys.named(tx, owner.account_id, name) is not None:
        raise ParameterError(f"the account has an SSH key pair {name} already", parameter="name")


def _add(tx: Tx, owner: Owner, name: str, public: PublicKey, type: str, verb: str) -> RowMapping:
    pair_id = ssh_keys.add(
        tx,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        name=name,
        public_key=public.text,
        fingerprint=public.fingerprint,
    )
    _event(tx, owner, pair_id, type, f"{verb} SSH key pair {name}")
    return ssh_keys.by_id(tx, pair_id)


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "fingerprint": row["fingerprint"],
            "account": accounts[row["account_id"]]["name"],
            "domain_id": domains[row["domain_id"]]["uuid"],
            "domain": domains[row["domain_id"]]["name"],
        }
        for row in rows
    ]


def _event(tx: Tx, owner: Owner, pair_id: int, type: str, text: str) -> None:
    record(
        tx,
        type=type,
        description=text,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=owner.user_id,
        resource_kind="SshKeyPair",
        resource_id=pair_id,
    )
