"""Signatures of API calls: HMAC-SHA1 over the sorted, encoded, lower-cased parameters.

Clients differ in the order of mixed-case names and in whether they encode `~`, `[`, `]` and `*`. Every such form of the
same parameters is accepted: they all stand for the same call, so tolerance gives an attacker nothing.
"""

import base64
import hashlib
import hmac
import itertools
from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import quote

from pileus.server.domain.errors import Unauthorized

_FORMATS = ("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%d %H:%M:%S%z")


def verify(parameters: Mapping[str, str], secret: str, signature: str, *, now: int) -> bool:
    """Whether `signature` signs `parameters` (names as sent, values decoded; `signature` itself is left out).

    `now` is in milliseconds. Raises `Unauthorized` when the call has expired or should say when it does.
    """
    signed = {name: value for name, value in parameters.items() if name.lower() != "signature"}
    given = signature.encode("utf-8", "replace")
    valid = False
    for text in _forms(signed):
        digest = hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()
        valid |= hmac.compare_digest(base64.b64encode(digest), given)
        if valid:
            break
    if valid:
        _check_expiry({name.lower(): value for name, value in signed.items()}, now)
    return valid


def sign(parameters: Mapping[str, str], secret: str) -> str:
    """The signature of `parameters` in the strict form, base64."""
    digest = hmac.new(secret.encode(), next(_forms(parameters)).encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode()


def _forms(parameters: Mapping[str, str]) -> Iterator[str]:
    """What may have been signed, the strict form first, no form twice."""
    encoded = {name: quote(value, safe="-_.*").replace("~", "%7E") for name, value in parameters.items()}
    orders = (sorted(encoded), sorted(encoded, key=str.lower))
    seen: set[str] = set()
    for order, (tilde, brackets, star) in itertools.product(orders, itertools.product((False, True), repeat=3)):
        text = "&".join(f"{name}={_other(encoded[name], tilde, brackets, star)}" for name in order).lower()
        if text not in seen:
            seen.add(text)
            yield text


def _other(value: str, tilde: bool, brackets: bool, star: bool) -> str:
    if tilde:
        value = value.replace("%7E", "~")
    if brackets:
        value = value.replace("%5B", "[").replace("%5D", "]")
    if star:
        value = value.replace("*", "%2A")
    return value


def _check_expiry(lowered: Mapping[str, str], now: int) -> None:
    if lowered.get("signatureversion") != "3":
        return
    expires = _instant(lowered.get("expires", ""))
    if expires is None or expires < now:
        raise Unauthorized


def _instant(text: str) -> int | None:
    for form in _FORMATS:
        try:
            return int(datetime.strptime(text.strip(), form).timestamp() * 1000)
        except (ValueError, OverflowError):
            continue
    return None
