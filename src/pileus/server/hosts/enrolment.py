"""One-time tokens, and what a host gets for one. Only digests of tokens are stored."""

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, delete, insert, or_, select, update

from pileus.server.db.tables.host import enrolment_token, fleet, fleet_certificate, host, host_certificate
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import HostState
from pileus.server.hosts import fleets
from pileus.server.hosts.authority import Authority, Presented, key_sha256
from pileus.server.hosts.signal import announce_reconnect, announce_removed
from pileus.wire.messages import Enrol, Enrolled, HostKind

TOKEN_SECONDS = 3600


class Denied(Exception):
    """The token is unknown, used or too old; the peer is not told which."""


class TooEarly(Exception):
    """The certificate has more than half of its life to come."""


def create_token(tx: Tx, host_id: int, *, valid_seconds: int = TOKEN_SECONDS) -> str:
    """A secret with which the agent of this host may ask for a certificate, once. It can be read only here."""
    token = secrets.token_urlsafe(32)
    tx.execute(
        insert(enrolment_token).values(
            token_hash=_digest(token), host_id=host_id, created_at=tx.now, expires_at=tx.now + valid_seconds * 1000
        )
    )
    return token


def redeem(tx: Tx, authority: Authority, request: Enrol, shown: Presented | None) -> Enrolled:
    """Use up the token and issue a certificate. Raises `Denied` and `authority.BadRequest` (then roll back).

    With a certificate `shown`, the new one names its hosts too, as far as it still counts for them. An agent that
    never got the answer may ask again with the same key until the token expires: nobody else has that key. The first
    use of a host's token ends what certificates the host had: whoever holds those was replaced.
    """
    digest = _digest(request.token)
    key = key_sha256(request.csr_pem)
    named = _named(tx, shown)
    fresh = _is_fresh(tx, digest)
    if not _used_up(tx, enrolment_token, enrolment_token.c.expires_at, digest, key, used_at=tx.now):
        if not _used_up(tx, fleet, fleet.c.token_expires_at, digest, key):
            raise Denied
        found = fleets.by_token(tx, digest)
        if found is None:
            raise Denied
        named.fleet = found
        certificate = _issue(tx, authority, request.csr_pem, named)
        return Enrolled(found[1], HostKind.ROUTING, certificate, authority.ca_pem, fleet=True)
    row = tx.one(
        select(host.c.id, host.c.uuid, host.c.kind)
        .join(enrolment_token, enrolment_token.c.host_id == host.c.id)
        .where(enrolment_token.c.token_hash == digest, host.c.live == 1)
    )
    if row is None or not fleets.take_for_agent(tx, row["id"]):
        raise Denied
    if fresh:
        _end_certificates(tx, row["id"])
    named.hosts[row["uuid"]] = (row["id"], row["kind"])
    certificate = _issue(tx, authority, request.csr_pem, named)
    return Enrolled(row["uuid"], HostKind(row["kind"]), certificate, authority.ca_pem)


def renew(tx: Tx, authority: Authority, csr_pem: str, shown: Presented | None) -> str:
    """A new certificate (PEM) for what the one shown still counts for; the old one counts until its end.

    Raises `Denied` when that is nothing, `TooEarly` in the first half of its life, and `authority.BadRequest`.
    """
    named = _named(tx, shown)
    if shown is None or (not named.hosts and named.fleet is None):
        raise Denied
    if tx.now < (shown.begins_at + shown.ends_at) // 2:
        raise TooEarly
    for table, column, ids in (
        (host_certificate, host_certificate.c.host_id, [host_id for host_id, _ in named.hosts.values()]),
        (fleet_certificate, fleet_certificate.c.fleet_id, [] if named.fleet is None else [named.fleet[0]]),
    ):
        if ids:
            tx.execute(delete(table).where(column.in_(ids), table.c.expires_at < tx.now))
    return _issue(tx, authority, csr_pem, named)


def accepted(tx: Tx, shown: Presented) -> dict[str, int]:
    """The hosts (UUID to id) for which a verified certificate counts now: named, not revoked, not removed."""
    return accepted_all(tx, [shown])[0]


def accepted_all(tx: Tx, shown: Sequence[Presented]) -> list[dict[str, int]]:
    """For each of some hundreds of verified certificates, the hosts for which it counts now."""
    by_serial = {each.serial: each for each in shown}
    found: dict[str, dict[str, int]] = {serial: {} for serial in by_serial}
    naming = [each.serial for each in by_serial.values() if each.hosts]
    if naming:
        serials = _COUNTING.add_columns(host_certificate.c.serial).where(host_certificate.c.serial.in_(naming))
        for row in tx.all(serials):
            if row["uuid"] in by_serial[row["serial"]].hosts:
                found[row["serial"]][row["uuid"]] = row["id"]
    return [found[each.serial] for each in shown]


def revoke(tx: Tx, host_id: int) -> None:
    """No certificate or token counts for this host any more; its line is ended after the commit."""
    _end_certificates(tx, host_id)
    tx.execute(
        update(enrolment_token).where(enrolment_token.c.host_id == host_id).values(used_at=tx.now, key_sha256=None)
    )
    tx.after_commit(lambda: announce_removed(host_id))


def _is_fresh(tx: Tx, digest: str) -> bool:
    """Whether nobody has used the token. Locked until the transaction ends: of two who come at once, one is first."""
    found = select(enrolment_token.c.key_sha256).where(enrolment_token.c.token_hash == digest).with_for_update()
    row = tx.one(found)
    return row is not None and row["key_sha256"] is None


def _end_certificates(tx: Tx, host_id: int) -> None:
    """No certificate that the host has counts any more; a line that was made with one is ended after the commit."""
    ended = (
        update(host_certificate)
        .where(host_certificate.c.host_id == host_id, host_certificate.c.revoked_at.is_(None))
        .values(revoked_at=tx.now)
    )
    if tx.execute(ended).rowcount:
        tx.after_commit(lambda: announce_reconnect(host_id))


@dataclass
class _Named:
    """Whom a certificate names: hosts (UUID to id and kind), and a fleet (id and UUID)."""

    hosts: dict[str, tuple[int, str]]
    fleet: tuple[int, str] | None


def _named(tx: Tx, shown: Presented | None) -> _Named:
    hosts = {uuid: (host_id, kind) for uuid, host_id, kind in _counting(tx, shown)}
    return _Named(hosts, fleets.counting(tx, shown))


def _issue(tx: Tx, authority: Authority, csr_pem: str, named: _Named) -> str:
    serving = any(kind == HostKind.SECONDARY_STORAGE for _, kind in named.hosts.values())
    fleet_uuid = "" if named.fleet is None else named.fleet[1]
    issued = authority.issue(csr_pem, named.hosts, serving=serving, fleet=fleet_uuid)
    for host_id, _ in named.hosts.values():
        tx.execute(
            insert(host_certificate).values(
                serial=issued.serial, host_id=host_id, issued_at=issued.issued_at, expires_at=issued.expires_at
            )
        )
    if named.fleet is not None:
        fleets.certified(tx, named.fleet[0], issued)
    return issued.certificate_pem


def _used_up(tx: Tx, table: Table, expires_at: Column[Any], digest: str, key: str, **values: Any) -> bool:
    """Bind the token to the key. False when it is unknown, too old, or another key's."""
    unused: ColumnElement[bool] = table.c.key_sha256.is_(None)
    if "used_at" in table.c:
        unused = and_(unused, table.c.used_at.is_(None))
    mine = or_(unused, table.c.key_sha256 == key)
    free = update(table).where(table.c.token_hash == digest, expires_at > tx.now, mine)
    return tx.execute(free.values(key_sha256=key, **values)).rowcount == 1


_COUNTING = (
    select(host.c.uuid, host.c.id, host.c.kind)
    .join(host_certificate, host_certificate.c.host_id == host.c.id)
    .where(host_certificate.c.revoked_at.is_(None), host.c.live == 1, host.c.state != str(HostState.REMOVED))
)


def _counting(tx: Tx, shown: Presented | None) -> list[tuple[str, int, str]]:
    if shown is None:
        return []
    rows = tx.all(_COUNTING.where(host_certificate.c.serial == shown.serial))
    return [(row["uuid"], row["id"], row["kind"]) for row in rows if row["uuid"] in shown.hosts]


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Attempts:
    """Failed attempts per address: after `most` of them an address waits until the oldest is `seconds` old."""

    def __init__(
        self, now: Callable[[], float], *, most: int = 10, seconds: float = 60.0, addresses: int = 4096
    ) -> None:
        self._now = now
        self._most = most
        self._seconds = seconds
        self._addresses = addresses
        self._failed: OrderedDict[str, list[float]] = OrderedDict()

    def may_try(self, address: str) -> bool:
        """Whether this address has attempts left."""
        return len(self._recent(address)) < self._most

    def failed(self, address: str) -> None:
        """Count a failure. Memory is bounded: the address heard of longest ago is dropped first."""
        self._failed[address] = [*self._recent(address), self._now()]
        self._failed.move_to_end(address)
        while len(self._failed) > self._addresses:
            self._failed.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        since = self._now() - self._seconds
        return [at for at in self._failed.get(address, ()) if at > since]
