"""Fetching what a URL serves, over connections whose far end was checked before each of them was made.

Blocking code for a thread of its own. Redirects are followed by hand, so that each one is checked like the first URL;
proxies of the environment are not used. A `Cut` ends a fetch from another thread, whatever it is waiting for.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from pileus.appliance.storage import addresses
from pileus.wire.operations import Reason, Refused

CHUNK_BYTES = 1 << 18
MAX_REDIRECTS = 5

_REDIRECTS = (301, 302, 303, 307, 308)
_TRY_LATER = (408, 425, 429)


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds: for a connection, for the next byte, for the whole."""

    connect_seconds: float = 15.0
    stall_seconds: float = 30.0
    total_seconds: float = 4 * 3600.0


class Cut:
    """Ends the connection it watches. Once cut, it also ends every later one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self.done = False

    def watch(self, connection: socket.socket) -> None:
        """Watch this connection from now on, and no other."""
        # A second descriptor of the same connection: shutting it down works under TLS and while another thread reads.
        second = connection.dup()
        with self._lock:
            if self._watched is not None:
                self._watched.close()
            self._watched = second
            if self.done:
                _shut(second)

    def now(self) -> None:
        """Cut it; safe from any thread, and more than once."""
        with self._lock:
            self.done = True
            if self._watched is not None:
                _shut(self._watched)

    def close(self) -> None:
        """Watch nothing any more."""
        with self._lock:
            if self._watched is not None:
                self._watched.close()
                self._watched = None


class Source:
    """An open answer. `total_bytes` is what the server promised, or None."""

    def __init__(self, response: http.client.HTTPResponse, url: str) -> None:
        self._response = response
        self.url = url
        self.total_bytes = response.length

    def chunks(self) -> Iterator[bytes]:
        """The body. Raises Refused (UNREACHABLE) when it ends before the promised length."""
        received = 0
        while chunk := self._response.read1(CHUNK_BYTES):
            received += len(chunk)
            yield chunk
        if self.total_bytes is not None and received < self.total_bytes:
            raise Refused(Reason.UNREACHABLE, f"the download ended after {received} of {self.total_bytes} bytes")


@contextmanager
def fetched(
    url: str, *, allowed: Sequence[addresses.Network], patience: Patience, cut: Cut, tls: ssl.SSLContext
) -> Iterator[Source]:
    """Open a URL and follow its redirects.

    Raises Refused, inside the block too: REJECTED for a forbidden scheme or address, too many redirects, or an answer
    that says no; UNREACHABLE when a server does not answer in time or breaks off.
    """
    overdue = threading.Timer(patience.total_seconds, cut.now)
    overdue.daemon = True
    overdue.start()
    try:
        with closing(cut):
            for _ in range(MAX_REDIRECTS + 1):
                connection = _connect(url, allowed, patience, cut, tls)
                # The response keeps the line open when the connection object has let go of it already.
                with closing(connection), closing(_ask(connection, url)) as response:
                    if response.status in _REDIRECTS:
                        url = _next(url, response)
                        continue
                    _require_body(response, url)
                    yield Source(response, url)
                    if cut.done:  # What ended there may have looked like the end of the body.
                        raise ConnectionAbortedError("cut off")
                    return
        raise Refused(Reason.REJECTED, f"the URL redirects more than {MAX_REDIRECTS} times")
    except ssl.SSLCertVerificationError as error:
        raise Refused(Reason.REJECTED, f"the certificate of the server is not valid: {error.verify_message}") from error
    except TimeoutError as error:
        raise Refused(Reason.UNREACHABLE, f"the server sent nothing for {patience.stall_seconds:g} s") from error
    except (http.client.HTTPException, ConnectionError, ssl.SSLError) as error:
        if cut.done:
            raise Refused(
                Reason.UNREACHABLE, f"the download was ended, at the latest after {patience.total_seconds:g} s"
            ) from error
        raise Refused(Reason.UNREACHABLE, f"the connection broke: {type(error).__name__}") from error
    finally:
        overdue.cancel()


def parsed(url: str) -> SplitResult:
    """A URL that may be fetched, in its parts. Raises Refused (REJECTED)."""
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port != 0
    except ValueError as error:
        raise Refused(Reason.REJECTED, "the URL cannot be read") from error
    if parts.scheme not in ("http", "https"):
        raise Refused(Reason.REJECTED, "images are fetched by http and https only")
    if not parts.hostname or not port_is_valid:
        raise Refused(Reason.REJECTED, "the URL names no server")
    if parts.username is not None or parts.password is not None:
        raise Refused(Reason.REJECTED, "a URL with a user name or password is not accepted")
    if any(ord(character) <= 32 or ord(character) > 126 for character in url):
        raise Refused(Reason.REJECTED, "the URL holds characters that must be written as %XX")
    return parts


def _connect(
    url: str, allowed: Sequence[addresses.Network], patience: Patience, cut: Cut, tls: ssl.SSLContext
) -> http.client.HTTPConnection:
    parts = parsed(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    line = _dial(addresses.checked(host, port, allowed), port, patience)
    try:
        cut.watch(line)
        line.settimeout(patience.stall_seconds)
        if parts.scheme == "https":
            line = tls.wrap_socket(line, server_hostname=host)
    except BaseException:
        line.close()
        raise
    connection = http.client.HTTPConnection(host, port)
    connection.sock = line
    return connection


def _dial(candidates: Sequence[str], port: int, patience: Patience) -> socket.socket:
    for address in candidates:
        with suppress(OSError):
            return socket.create_connection((address, port), timeout=patience.connect_seconds)
    raise Refused(Reason.UNREACHABLE, f"no connection to {', '.join(candidates)} port {port}")


def _ask(connection: http.client.HTTPConnection, url: str) -> http.client.HTTPResponse:
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    standard = parts.port is None or parts.port == (443 if parts.scheme == "https" else 80)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    connection.putrequest("GET", target, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", f"{host}" if standard else f"{host}:{parts.port}")
    connection.putheader("Accept-Encoding", "identity")
    connection.putheader("User-Agent", "pileus")
    connection.putheader("Connection", "close")
    connection.endheaders()
    return connection.getresponse()


def _next(url: str, response: http.client.HTTPResponse) -> str:
    location = response.getheader("Location")
    if not location:
        raise Refused(Reason.REJECTED, "the URL redirects to nowhere")
    following = urljoin(url, location)
    if url.startswith("https:") and urlsplit(following).scheme == "http":
        raise Refused(Reason.REJECTED, "the URL redirects from https to http")
    return following


def _require_body(response: http.client.HTTPResponse, url: str) -> None:
    status = response.status
    if status >= 500 or status in _TRY_LATER:
        raise Refused(Reason.UNREACHABLE, f"the server answers {status}")
    if status != 200:
        raise Refused(Reason.REJECTED, f"the server answers {status}")
    encoding = (response.getheader("Content-Encoding") or "identity").strip().lower()
    compressed = urlsplit(url).path.lower().endswith((".gz", ".bz2"))
    if encoding != "identity" and not compressed:
        raise Refused(Reason.REJECTED, f"the server encodes the image as {encoding}")


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
