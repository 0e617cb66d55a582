"""One HTTP request: reading it, and telling its answer."""

import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_plus

from pileus.server.api.render import Answer
from pileus.server.domain.errors import ParameterError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

FORM = "application/x-www-form-urlencoded"
MOST_BYTES = 1024 * 1024
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

_ALWAYS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)


@dataclass(frozen=True)
class Request:
    """A call as it came. `sent` holds every parameter once, by its name as sent."""

    method: str
    scheme: str
    peer: str
    headers: Mapping[str, str]
    sent: Mapping[str, str] = field(repr=False)
    id: str = ""
    """Ours, random: it is in every line of the log about this call, and in the answer's X-Request-Id."""

    def value(self, name: str) -> str:
        """A parameter by its lower-case name; empty if it was not sent."""
        for sent, value in self.sent.items():
            if sent.lower() == name:
                return value
        return ""

    @property
    def as_json(self) -> bool:
        """Whether the answer shall be JSON; it is XML unless asked for."""
        return self.value("response").lower() == "json"

    def cookie(self, name: str) -> str:
        """A cookie, empty if there is none."""
        for part in self.headers.get("cookie", "").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
        return ""


def request(scope: Scope, sent: Mapping[str, str]) -> Request:
    """Make a request of an ASGI scope and the parameters read from it."""
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    client = scope.get("client")
    peer, scheme = client[0] if client else "", scope.get("scheme", "http")
    return Request(scope["method"], scheme, peer, headers, sent, request_id(scope))


def request_id(scope: Scope) -> str:
    """The id of a request, chosen when it is first asked for. What a client sends under that name is not believed."""
    return str(scope.setdefault("pileus.request_id", secrets.token_hex(8)))


async def body(scope: Scope, receive: Receive) -> bytes:
    """The form of a POST; empty for anything else. 431 if it is larger than any call has reason to be."""
    if scope["method"] != "POST":
        return b""
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        more = message.get("more_body", False)
        if size > MOST_BYTES:
            raise ParameterError(f"a call holds at most {MOST_BYTES} bytes")
    content_type = next((v for k, v in scope["headers"] if k.lower() == b"content-type"), b"")
    return b"".join(parts) if content_type.decode("latin-1").lower().startswith(FORM) else b""


def decode(*encoded: bytes, bare_names: bool = True) -> dict[str, str]:
    """Parameters of query string and form together, each once. 431 for broken encoding and for contradictions.

    A name given twice with two values is refused: what was signed and what is obeyed must never differ.
    With `bare_names` False, parameters without `=` are left out.
    """
    sent: dict[str, str] = {}
    lowered: dict[str, str] = {}
    for part in encoded:
        for pair in part.decode("latin-1").split("&"):
            name, equals, value = pair.partition("=")
            if not name or (not equals and not bare_names):
                continue
            name, value = _unquoted(name), _unquoted(value)
            known = lowered.get(name.lower())
            if known is None:
                lowered[name.lower()] = sent[name] = value
            elif known != value:
                raise ParameterError(f"parameter {name[:100]} is given twice, with different values", parameter=name)
    return sent


def _unquoted(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise ParameterError("the parameters hold a % that begins no escape")
    try:
        return unquote_plus(text.encode("latin-1").decode("utf-8"), errors="strict")
    except UnicodeDecodeError:
        raise ParameterError("the parameters are not UTF-8") from None


async def tell(send: Send, answer: Answer) -> None:
    """Send an answer."""
    headers = [
        (b"content-type", answer.content_type.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *_ALWAYS,
        *((name.lower().encode(), value.encode("latin-1", "replace")) for name, value in answer.headers),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
