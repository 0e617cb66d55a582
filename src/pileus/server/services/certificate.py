"""Custom certificates for what the cloud serves to browsers: checked, stored, never shown.

The server's own certificate comes with its key; those that vouch for it come before, each with a name and a position.
"""

import datetime
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from sqlalchemy import insert, select, update

from pileus.server.db.tables.ssh_key import custom_certificate
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.dns_name import dns_domain
from pileus.server.domain.errors import ParameterError
from pileus.server.events import record_by, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.submit import submit
from pileus.server.workflows.certificate import certificate_stored

_OWN = 0
"""Position of the server's own certificate; those that vouch for it count from 1."""


def upload(
    tx: Tx,
    caller: Caller,
    *,
    certificate: str,
    private_key: str | None,
    name: str | None,
    position: int | None,
    domain_suffix: str,
) -> str:
    """Check and store a certificate; returns the job's UUID. 431 names what does not fit, and never repeats a key.

    With `private_key` it is the server's own, for names below `domain_suffix`, and may be followed by its chain;
    without, one that vouches for it, which needs `name` and `position` (from 1).
    """
    suffix = dns_domain(domain_suffix, "domainsuffix")
    chain = _chain(certificate)
    if private_key is None:
        if not name or position is None or position < 1:
            raise ParameterError("name and an id from 1 are required without a private key", parameter="name")
        _check_vouching(chain[0])
        key, place, called = None, position, name
    else:
        key = _checked_key(chain[0], private_key)
        _check_server(tx, chain[0], suffix)
        place, called = _OWN, name or suffix
    _store(tx, called, place, suffix, certificate, key)
    started = record_by(
        tx, caller, types.UPLOAD_CUSTOM_CERTIFICATE, f"Uploading certificate {called} for {suffix}", state=SCHEDULED
    )
    certificate_id = tx.scalar(select(custom_certificate.c.id).where(custom_certificate.c.name == called))
    job = submit(
        tx,
        certificate_stored(certificate=int(certificate_id)),
        Owner(caller.account_id, caller.domain_id, caller.user_id),
        command="uploadCustomCertificate",
        instance_id=certificate_id,
        resource_key="certificate:custom",
        start_event_id=started,
    )
    return job.uuid


def view(tx: Tx, caller: Caller, certificate_id: int) -> dict[str, Any]:
    """What the result of an upload tells."""
    row = tx.one(select(custom_certificate).where(custom_certificate.c.id == certificate_id))
    if row is None:
        raise ParameterError("there is no such certificate", parameter="id")
    return {"message": f"certificate {row['name']} for {row['domain_suffix']} is stored"}


def _chain(text: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, each vouched for by the next."""
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        raise ParameterError("certificate is not PEM of certificates", parameter="certificate") from None
    for own, above in pairwise(chain):
        if not _vouches(above, own):
            raise ParameterError("each certificate must be followed by the one that signed it", parameter="certificate")
    return chain


def _vouches(above: x509.Certificate, own: x509.Certificate) -> bool:
    try:
        own.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_vouching(certificate: x509.Certificate) -> None:
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        raise ParameterError("a certificate without a private key must be one of an authority", parameter="certificate")


def _checked_key(certificate: x509.Certificate, pem: str) -> str:
    try:
        key = serialization.load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        raise ParameterError("privatekey is not an unencrypted key in PEM", parameter="privatekey") from None
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != certificate.public_key().public_bytes(*form):
        raise ParameterError("privatekey is not that of the certificate", parameter="privatekey")
    return pem


def _check_server(tx: Tx, certificate: x509.Certificate, suffix: str) -> None:
    now = datetime.datetime.fromtimestamp(tx.now / 1000, datetime.UTC)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise ParameterError("the certificate is not valid now", parameter="certificate")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        told = names.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        told = []
    if not any(name.lower() in (suffix, f"*.{suffix}") for name in told):
        raise ParameterError(f"the certificate is not for *.{suffix}", parameter="domainsuffix")
    stored = select(custom_certificate.c.certificate_pem).where(custom_certificate.c.position != _OWN)
    above = [each for pem in tx.execute(stored).scalars() for each in x509.load_pem_x509_certificates(pem.encode())]
    named = [each for each in above if each.subject == certificate.issuer]
    if named and not any(_vouches(each, certificate) for each in named):
        raise ParameterError("the stored certificate of its issuer did not sign it", parameter="certificate")


def _store(tx: Tx, name: str, position: int, suffix: str, certificate: str, key: str | None) -> None:
    values = {
        "position": position,
        "domain_suffix": suffix,
        "certificate_pem": certificate,
        "key_pem": key,
        "changed_at": tx.now,
    }
    changed = update(custom_certificate).where(custom_certificate.c.name == name).values(**values)
    if tx.execute(changed).rowcount == 0:
        tx.execute(insert(custom_certificate).values(name=name, **values))
