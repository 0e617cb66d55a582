"""Who this agent is: its key, certificate and CA in the state directory, and the hosts it was enrolled for.

Keys are made here and never leave. Files are written whole, 0600, and renamed into place. Key and certificate are one
file, so that there is a pair that fits at every moment, whenever the agent or the machine ends.
"""

import contextlib
import fcntl
import hashlib
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pileus.agent.backend import Credentials
from pileus.wire.messages import HostKind

SERVER_ROLE = "urn:pileus:server"
"""URI in a management server's certificate: no certificate of a host can pass for it."""


class StateDirBusy(Exception):
    """Another agent runs on this state directory."""


class EnrolledHost(msgspec.Struct, frozen=True):
    """A host of this agent; `token_sha256` tells which configured token brought it. With `fleet`, it is a fleet."""

    uuid: str
    kind: HostKind
    token_sha256: str
    address: str = ""
    fleet: bool = False


class Identity:
    """The agent's state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self._pair = state_dir / "agent.pem"
        self._first_key = state_dir / "agent.key"
        """The key of a request that was not answered yet: asked again, it is the same agent to the server."""
        self.credentials = Credentials(certificate=str(self._pair), key=str(self._pair), ca=str(state_dir / "ca.crt"))
        self._hosts_file = state_dir / "hosts.json"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory and keep other agents out of it. Raises `StateDirBusy`."""
        self.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise StateDirBusy(f"another agent uses {self.state_dir}") from error
            self._join_files()
            yield
        finally:
            os.close(descriptor)

    def hosts(self) -> tuple[EnrolledHost, ...]:
        """Hosts enrolled so far."""
        try:
            stored = self._hosts_file.read_bytes()
        except FileNotFoundError:
            return ()
        return msgspec.json.decode(stored, type=tuple[EnrolledHost, ...])

    def host_of(self, token: str) -> EnrolledHost | None:
        """The host that this token brought, if it was used already."""
        wanted = token_sha256(token)
        return next((host for host in self.hosts() if host.token_sha256 == wanted), None)

    def host_dir(self, uuid: str) -> Path:
        """The directory that belongs to one host alone."""
        path = self.state_dir / "hosts" / uuid
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def enrolled(self, host: EnrolledHost, *, certificate_pem: str, ca_pem: str) -> None:
        """Keep a new certificate and the host it was issued for."""
        write_private(Path(self.credentials.ca), ca_pem.encode())
        self.renewed(self._key(), certificate_pem)
        others = tuple(other for other in self.hosts() if other.uuid != host.uuid)
        write_private(self._hosts_file, msgspec.json.encode((*others, host)))

    def renewed(self, key: ec.EllipticCurvePrivateKey, certificate_pem: str) -> None:
        """Use this pair from now on. Raises OSError; then the pair that was there is as it was."""
        write_private(self._pair, _pem(key) + certificate_pem.encode())
        self._first_key.unlink(missing_ok=True)

    def certificate(self) -> x509.Certificate:
        """The certificate in use."""
        return x509.load_pem_x509_certificate(self._pair.read_bytes())

    @staticmethod
    def new_key() -> ec.EllipticCurvePrivateKey:
        """A key that nobody has."""
        return ec.generate_private_key(ec.SECP256R1())

    def request(
        self, *, key: ec.EllipticCurvePrivateKey | None = None, addresses: tuple[x509.GeneralName, ...] = ()
    ) -> str:
        """A certificate request (PEM) for a key; without one for this agent's, which is made when there is none."""
        names = [x509.NameAttribute(NameOID.COMMON_NAME, "pileus agent")]
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
        if addresses:
            builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        return (
            builder.sign(key or self._key(), algorithm=hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
            .decode()
        )

    def client_context(self) -> ssl.SSLContext:
        """TLS towards the management server: our certificate, our CA alone, TLS 1.3."""
        context = pinned_context(self.ca_pem())
        context.load_cert_chain(self.credentials.certificate, self.credentials.key)
        return context

    def ca_pem(self) -> str:
        """The CA this agent believes."""
        return Path(self.credentials.ca).read_text()

    def has_certificate(self) -> bool:
        """Whether this agent was enrolled before."""
        return all(Path(path).exists() for path in (self.credentials.certificate, self.credentials.ca))

    def _key(self) -> ec.EllipticCurvePrivateKey:
        for path in (self._pair, self._first_key):
            if path.exists():
                return _read_key(path)
        key = self.new_key()
        write_private(self._first_key, _pem(key))
        return key

    def _join_files(self) -> None:
        """Agents of the first version kept key and certificate apart."""
        old = self.state_dir / "agent.crt"
        if old.exists() and self._first_key.exists() and not self._pair.exists():
            self.renewed(_read_key(self._first_key), old.read_text())
        if self._pair.exists():
            old.unlink(missing_ok=True)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError(f"{path} holds no elliptic curve key")
    return key


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def pinned_context(ca_pem: str) -> ssl.SSLContext:
    """TLS that believes this CA alone. Whom it talks to is checked by `is_server`, not by the address it dialled."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(cadata=ca_pem)
    return context


def is_server(peer: ssl.SSLObject | ssl.SSLSocket | None) -> bool:
    """Whether the verified peer certificate is one of a management server."""
    certificate = peer.getpeercert() if peer is not None else None
    return certificate is not None and ("URI", SERVER_ROLE) in certificate.get("subjectAltName", ())


def token_sha256(token: str) -> str:
    """Hex digest by which a used token is recognised; the token itself is not kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def write_private(path: Path, content: bytes) -> None:
    """Write a file whole and durably, readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
