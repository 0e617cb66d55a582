"""Passwords: argon2id. A hash takes about a tenth of a second on purpose: never call these inside a transaction.

What is stored is one verifier, or two separated by a space: the second is of the password's MD5, for clients of API 2.2
that send this in place of the password. It is only made while such clients are admitted.
"""

import hashlib
import re

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pileus.server.domain.errors import ParameterError

_hasher = PasswordHasher()

SHORTEST = 1
LONGEST = 255

_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$JjNQLuTqk4EcC1ROYNkGag$EMGYZ7CvNIzbgUgujzvD5WXQBmkUTFyiMRkbZvRGZKs"
"""Hash of a forgotten text, checked in place of a missing one: an unknown user takes as long as a wrong password."""

_MD5 = re.compile(r"[0-9a-fA-F]{32}\Z")


def hashed(password: str, *, md5: bool = False) -> str:
    """The text to store; with `md5`, what clients send who send an MD5 will match it too."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ParameterError(f"a password has {SHORTEST} to {LONGEST} characters", parameter="password")
    first = _hasher.hash(password)
    return f"{first} {_hasher.hash(_md5_of(password))}" if md5 else first


def matches(password: str, stored: str | None) -> bool:
    """Whether the password is the one behind `stored`. A missing hash and an empty password never match."""
    return _verified(password, _verifiers(stored)[0])


def matches_md5(sent: str, stored: str | None) -> bool:
    """Whether `sent` is the MD5 of the password, or the password whose MD5 was set as password."""
    first, second = _verifiers(stored)
    if _MD5.match(sent):
        return _verified(sent.lower(), second)
    return _verified(_md5_of(sent) if sent else "", first)


def _verifiers(stored: str | None) -> tuple[str | None, str | None]:
    first, _, second = (stored or "").partition(" ")
    return first or None, second or None


def _verified(password: str, verifier: str | None) -> bool:
    try:
        _hasher.verify(verifier or _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return False
    return verifier is not None and password != ""


def _md5_of(password: str) -> str:
    """What clients of API 2.2 make of a password; no protection, and none is expected of it."""
    return hashlib.md5(password.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
