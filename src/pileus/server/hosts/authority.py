"""The cloud's own certificate authority: vouches for servers and hosts, and for nobody else.

A host certificate names its hosts as `urn:uuid:…` and its fleet as `urn:pileus:fleet:…`; a server certificate carries
`SERVER_ROLE`, so that no host can pass for a server even though one CA signs both.
"""

import datetime
import hashlib
import ipaddress
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from pileus.server.db.tables.host import authority as authority_table
from pileus.server.db.transaction import Database

SERVER_ROLE = "urn:pileus:server"
CA_DAYS = 3650
LEAF_DAYS = 1095
NEVER = 2**63 - 1
"""An instant that does not come, in ms since the epoch."""
_URN = "urn:uuid:"
_FLEET = "urn:pileus:fleet:"
_SKEW = datetime.timedelta(hours=1)


class BadRequest(Exception):
    """The certificate request cannot be used."""


@dataclass(frozen=True)
class Issued:
    """A new host certificate. `serial` is hex; times are milliseconds since the epoch."""

    serial: str
    certificate_pem: str
    issued_at: int
    expires_at: int


@dataclass(frozen=True)
class Presented:
    """What a peer's certificate, verified by TLS, says: the hosts and the fleet (or "") it speaks for, and how long.

    Times in milliseconds since the epoch.
    """

    serial: str
    hosts: frozenset[str]
    fleet: str = ""
    begins_at: int = 0
    ends_at: int = NEVER


class Authority:
    """The CA, loaded. Cheap to keep; its key stays in memory and in the database."""

    def __init__(self, certificate_pem: str, key_pem: str, *, leaf_seconds: float = LEAF_DAYS * 86400) -> None:
        key = serialization.load_pem_private_key(key_pem.encode(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is of a kind we never make")
        self._key = key
        self._life = datetime.timedelta(seconds=leaf_seconds)
        self._certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        self.ca_pem = certificate_pem

    @classmethod
    def load(cls, database: Database, *, leaf_seconds: float = LEAF_DAYS * 86400) -> "Authority":
        """The farm's authority; the first server makes it. Blocks: call it from a thread.

        What it signs counts for `leaf_seconds`.
        """
        columns = select(authority_table.c.certificate_pem, authority_table.c.key_pem)
        ours = columns.where(authority_table.c.name == "ca")
        with database.read() as tx:
            row = tx.one(ours)
        if row is None:
            certificate_pem, key_pem = _make_ca()
            try:
                with database.write() as tx:
                    tx.execute(
                        insert(authority_table).values(
                            name="ca", certificate_pem=certificate_pem, key_pem=key_pem, created_at=tx.now
                        )
                    )
            except IntegrityError:
                pass  # Another server of the farm was first; its CA is everybody's.
            with database.read() as tx:
                row = tx.one(ours)
        if row is None:
            raise RuntimeError("the authority was stored and is not there")
        return cls(row["certificate_pem"], row["key_pem"], leaf_seconds=leaf_seconds)

    @property
    def ca_sha256(self) -> str:
        """Hex digest that an administrator gives along with a token."""
        return hashlib.sha256(self._certificate.public_bytes(serialization.Encoding.DER)).hexdigest()

    def server_context(self, names: Sequence[str]) -> ssl.SSLContext:
        """TLS of a listener that is reached under these DNS names and addresses; a fresh key each time."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.UniformResourceIdentifier(SERVER_ROLE), *map(_general_name, names)]
        leaf = self._leaf(key.public_key(), "pileus server", alternatives, server=True, client=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_OPTIONAL
        # Making tickets costs half as much as a handshake, and agents do not use them: a line lasts for months.
        context.num_tickets = 0
        context.load_verify_locations(cadata=self.ca_pem)
        with tempfile.TemporaryDirectory() as directory:
            # The ssl module reads keys from files only; this one lives for the length of a call, 0700 around it.
            chain = Path(directory, "chain.pem")
            chain.write_text(_key_pem(key) + _pem(leaf) + self.ca_pem)
            context.load_cert_chain(chain)
        return context

    def issue(self, csr_pem: str, hosts: Iterable[str], *, serving: bool, fleet: str = "") -> Issued:
        """A certificate naming these host UUIDs, and a fleet's, for the key of the request. Raises `BadRequest`.

        The request's subject is ignored. With `serving` (storage hosts) the certificate may be shown by a listener,
        and the addresses the request asks for are taken over.
        """
        request = _read_request(csr_pem)
        alternatives: list[x509.GeneralName] = [x509.UniformResourceIdentifier(_URN + uuid) for uuid in sorted(hosts)]
        if fleet:
            alternatives.append(x509.UniformResourceIdentifier(_FLEET + fleet))
        if serving:
            alternatives += _addresses(request)
        public = request.public_key()
        if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise BadRequest("the key must be an elliptic curve or RSA key")
        leaf = self._leaf(public, "pileus host", alternatives, server=serving, client=True)
        return Issued(
            serial=f"{leaf.serial_number:x}",
            certificate_pem=_pem(leaf),
            issued_at=_ms(leaf.not_valid_before_utc),
            expires_at=_ms(leaf.not_valid_after_utc),
        )

    def _leaf(
        self,
        public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey,
        name: str,
        alternatives: Sequence[x509.GeneralName],
        *,
        server: bool,
        client: bool,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        uses = [ExtendedKeyUsageOID.SERVER_AUTH] * server + [ExtendedKeyUsageOID.CLIENT_AUTH] * client
        issuer = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _SKEW)
            .not_valid_after(now + self._life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def key_sha256(csr_pem: str) -> str:
    """Hex digest of the public key of a request. Raises `BadRequest`."""
    public = _read_request(csr_pem).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def presented(der: bytes | None) -> Presented | None:
    """Read a peer certificate that TLS has verified; None when there is none, or it names nobody."""
    if der is None:
        return None
    certificate = x509.load_der_x509_certificate(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = frozenset(uri.removeprefix(_URN) for uri in uris if uri.startswith(_URN))
    fleets = [uri.removeprefix(_FLEET) for uri in uris if uri.startswith(_FLEET)]
    fleet = fleets[0] if len(fleets) == 1 else ""
    if not hosts and not fleet:
        return None
    begins_at, ends_at = _ms(certificate.not_valid_before_utc), _ms(certificate.not_valid_after_utc)
    return Presented(f"{certificate.serial_number:x}", hosts, fleet, begins_at, ends_at)


def _make_ca() -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    name = _name("pileus certificate authority")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + datetime.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _read_request(csr_pem: str) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
        if not request.is_signature_valid:
            raise BadRequest("the request is not signed by its own key")
    except (ValueError, TypeError, InvalidSignature) as error:
        raise BadRequest("the certificate request cannot be read") from error
    return request


def _addresses(request: x509.CertificateSigningRequest) -> Sequence[x509.GeneralName]:
    try:
        wanted = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return [name for name in wanted if isinstance(name, x509.IPAddress | x509.DNSName)][:8]


def _general_name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _ms(instant: datetime.datetime) -> int:
    return round(instant.timestamp() * 1000)
