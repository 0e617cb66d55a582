"""How a host gets its certificate: a one-time token and a certificate request, posted over TLS.

The CA is fetched first and compared with the pinned fingerprint (or trusted on first use when there is none); the
token goes only to a server that this CA vouches for. An agent that has a certificate shows it, and the new one
names its earlier hosts too.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pileus.agent.identity import EnrolledHost, Identity, is_server, pinned_context, token_sha256
from pileus.wire.messages import Enrol, Enrolled

LARGEST_REPLY = 256 * 1024
TIMEOUT_SECONDS = 30.0


class EnrolmentRefused(Exception):
    """The server, or what it presented, is not to be believed; or the server does not believe the token."""


class ServerUnreachable(Exception):
    """Nobody answered; trying again may help."""


@dataclass(frozen=True)
class Token:
    """A one-time secret, and the SHA-256 (hex) of the CA certificate if the administrator gave it along."""

    secret: str
    ca_sha256: str = ""


@dataclass(frozen=True)
class Endpoint:
    """Where a management server listens for agents."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The WebSocket address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"wss://{host}:{self.port}/agent"


def parse_token(text: str) -> Token:
    """Read `TOKEN [--ca-sha256 HEX]`, as a token file holds it. Raises ValueError."""
    match text.split():
        case [secret]:
            return Token(secret)
        case [secret, "--ca-sha256", digest]:
            plain = digest.replace(":", "").lower()
            if len(bytes.fromhex(plain)) != hashlib.sha256().digest_size:
                raise ValueError("--ca-sha256 takes 64 hex digits")
            return Token(secret, plain)
        case _:
            raise ValueError("expected: TOKEN [--ca-sha256 HEX]")


def parse_endpoint(text: str, *, default_port: int = 8250) -> Endpoint:
    """Read `HOST`, `HOST:PORT` or `[IPV6]:PORT`, with or without `wss://`. Raises ValueError."""
    rest = text.removeprefix("wss://").rstrip("/")
    if rest.startswith("["):
        host, closed, port = rest[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ValueError(f"not an address: {text}")
        port = port.removeprefix(":")
    elif rest.count(":") > 1:
        host, port = rest, ""
    else:
        host, _, port = rest.partition(":")
    if not host or "/" in host:
        raise ValueError(f"not an address: {text}")
    number = int(port) if port else default_port
    if not 0 < number < 65536:
        raise ValueError(f"not a port: {port}")
    return Endpoint(host, number)


async def enrol(identity: Identity, server: Endpoint, token: Token, *, address: str) -> EnrolledHost:
    """Exchange the token for a certificate and keep it. Raises `EnrolmentRefused` and `ServerUnreachable`.

    `address` (an IP address or a name) goes into the request: a storage host's certificate names what it serves on.
    """
    if identity.has_certificate():
        ca_pem = identity.ca_pem()
        context = identity.client_context()
    else:
        ca_pem = await _fetch_ca(server)
        context = pinned_context(ca_pem)
    if token.ca_sha256 and not hmac.compare_digest(ca_sha256(ca_pem), token.ca_sha256):
        raise EnrolmentRefused(f"the CA of {server.host} has another fingerprint than the one given with the token")
    # The new certificate takes the place of the old one, so it must name the addresses of earlier hosts as well.
    request = Enrol(token.secret, identity.request(addresses=addresses_of(identity.hosts(), address)))
    status, body = await ask(server, context, "POST", "/enrol", msgspec.json.encode(request))
    if status != 200:
        raise EnrolmentRefused(f"{server.host} refused the token: HTTP {status}")
    enrolled = _decode(body)
    if ca_sha256(enrolled.ca_pem) != ca_sha256(ca_pem):
        raise EnrolmentRefused(f"{server.host} answered with another CA than it presented")
    host = EnrolledHost(enrolled.host, enrolled.kind, token_sha256(token.secret), address, enrolled.fleet)
    identity.enrolled(host, certificate_pem=enrolled.certificate_pem, ca_pem=enrolled.ca_pem)
    return host


def addresses_of(hosts: Sequence[EnrolledHost], *others: str) -> tuple[x509.GeneralName, ...]:
    """The addresses of these hosts, and others, each once, as names of a certificate request."""
    known = dict.fromkeys((*(host.address for host in hosts), *others))
    return tuple(_general_name(each) for each in known if each)


def ca_sha256(ca_pem: str) -> str:
    """Hex SHA-256 of the DER form of a certificate. Raises ValueError for anything else."""
    certificate = x509.load_pem_x509_certificate(ca_pem.encode())
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


async def _fetch_ca(server: Endpoint) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # Only the CA is fetched here; nothing secret is said before it is checked.
    status, body = await ask(server, context, "GET", "/ca", b"", verified=False)
    if status != 200:
        raise EnrolmentRefused(f"{server.host} has no CA to show: HTTP {status}")
    try:
        text = body.decode("ascii")
        ca_sha256(text)
    except ValueError as error:
        raise EnrolmentRefused(f"{server.host} shows something that is no certificate") from error
    return text


async def ask(
    server: Endpoint, context: ssl.SSLContext, method: str, path: str, body: bytes, *, verified: bool = True
) -> tuple[int, bytes]:
    """One HTTP/1.1 exchange on a connection of its own: status and body. Small enough not to need a client library.

    Raises `EnrolmentRefused` for a server that is not to be believed, and `ServerUnreachable`.
    """
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_connection(server.host, server.port, ssl=context)
            try:
                if verified and not is_server(writer.get_extra_info("ssl_object")):
                    raise EnrolmentRefused(f"{server.host} presents a certificate that is not a server's")
                head = f"{method} {path} HTTP/1.1\r\nHost: {server.host}\r\nConnection: close\r\n"
                kind = "Content-Type: application/json\r\n" if body else ""
                writer.write(f"{head}{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
                status = (await reader.readline()).split()
                while (await reader.readline()).strip():
                    continue
                reply = await reader.read(LARGEST_REPLY)
                while len(reply) < LARGEST_REPLY and (more := await reader.read(LARGEST_REPLY)):
                    reply += more
            finally:
                writer.close()
        return int(status[1]), reply
    except ssl.SSLCertVerificationError as error:
        raise EnrolmentRefused(f"{server.host} is not vouched for by the CA: {error.verify_message}") from error
    except (OSError, TimeoutError) as error:
        raise ServerUnreachable(f"{server.host}:{server.port}: {error or 'no answer'}") from error
    except (ValueError, IndexError) as error:
        raise EnrolmentRefused(f"{server.host} does not speak HTTP") from error


def _decode(body: bytes) -> Enrolled:
    try:
        return msgspec.json.decode(body, type=Enrolled)
    except msgspec.MsgspecError as error:
        raise EnrolmentRefused("the server's answer cannot be read") from error


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
