"""Who this agent is: its key, certificate and CA in the state directory, and the hosts it was enrolled for.

The key is made here and never leaves. Files are written whole, 0600, and renamed into place.
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
        self.credentials = Credentials(
            certificate=str(state_dir / "agent.crt"), key=str(state_dir / "agent.key"), ca=str(state_dir / "ca.crt")
        )
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
        write_private(Path(self.credentials.certificate), certificate_pem.encode())
        others = tuple(other for other in self.hosts() if other.uuid != host.uuid)
        write_private(self._hosts_file, msgspec.json.encode((*others, host)))

    def request(self, *, addresses: tuple[x509.GeneralName, ...] = ()) -> str:
        """A certificate request (PEM) for this agent's key, which is made when there is none."""
        names = [x509.NameAttribute(NameOID.COMMON_NAME, "pileus agent")]
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(names))
        if addresses:
            builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        return builder.sign(self._key(), algorithm=hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

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
        path = Path(self.credentials.key)
        if not path.exists():
            fresh = ec.generate_private_key(ec.SECP256R1())
            write_private(
                path,
                fresh.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                ),
            )
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{path} holds no elliptic curve key")
        return key


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
