"""Who is calling: an API key with its signature, or a login with its session key from an origin of ours."""

import ipaddress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from pileus.server.api import signing
from pileus.server.api.command import View
from pileus.server.api.request import Request
from pileus.server.config import keys, value
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import Unauthorized
from pileus.server.services import session

COOKIE = "JSESSIONID"
COOKIE_PATH = "/client"


@dataclass(frozen=True)
class Entry:
    """A caller who was let in. `stale` asks for the login to be touched after the call."""

    caller: Caller
    by_session: bool = False
    stale: bool = False


@dataclass(frozen=True)
class Told:
    """What a public command answers, and the headers that go with it."""

    view: View
    headers: tuple[tuple[str, str], ...] = ()


class Public(Protocol):
    """A command that needs no caller: it opens its own units of work."""

    def serve(self, database: Database, request: Request) -> Told:
        """Answer the call."""


def authenticate(tx: Tx, request: Request) -> Entry:
    """Let a caller in, or raise `Unauthorized`, which never says what was wrong."""
    if request.value("apikey"):
        return _by_signature(tx, request)
    if request.cookie(COOKIE):
        return _by_session(tx, request)
    raise Unauthorized


def check_origin(tx: Tx, request: Request) -> None:
    """Refuse what another site made a browser send: sessions travel in a cookie, which browsers add by themselves."""
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Unauthorized
    origin = request.headers.get("origin") or request.headers.get("referer")
    if origin is None:
        return
    parts = urlsplit(origin)
    allowed = {one.strip().rstrip("/") for one in value(tx, keys.api_allowed_origins).split(",")} - {""}
    if parts.netloc and (parts.netloc == request.headers.get("host") or f"{parts.scheme}://{parts.netloc}" in allowed):
        return
    raise Unauthorized


def client_of(tx: Tx, request: Request) -> str:
    """The address of the client. What a proxy says of it counts only if the proxy is one of ours."""
    told = request.headers.get("x-forwarded-for")
    trusted = value(tx, keys.proxy_cidr)
    if not told or not trusted or not _inside(request.peer, trusted):
        return request.peer
    for hop in reversed(told.split(",")):
        if not _inside(hop.strip(), trusted):
            return hop.strip()[:64] if _is_address(hop.strip()) else request.peer
    return request.peer


def cookie(request: Request, token: str) -> str:
    """The Set-Cookie header that opens a session in a browser; an empty token ends it."""
    parts = [f"{COOKIE}={token}", f"Path={COOKIE_PATH}", "HttpOnly", "SameSite=Lax"]
    if request.scheme == "https":
        parts.append("Secure")
    if not token:
        parts.append("Max-Age=0")
    return "; ".join(parts)


def _by_signature(tx: Tx, request: Request) -> Entry:
    signer = session.signer(tx, request.value("apikey"))
    if signer is None:
        raise Unauthorized
    if not signing.verify(request.sent, signer.secret, request.value("signature"), now=tx.now):
        raise Unauthorized
    return Entry(signer.caller)


def _by_session(tx: Tx, request: Request) -> Entry:
    check_origin(tx, request)
    caller, stale = session.check(tx, request.cookie(COOKIE), request.value("sessionkey"))
    return Entry(caller, by_session=True, stale=stale)


def _inside(address: str, networks: str) -> bool:
    try:
        return any(
            ipaddress.ip_address(address) in ipaddress.ip_network(one.strip(), strict=False)
            for one in networks.split(",")
            if one.strip()
        )
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
