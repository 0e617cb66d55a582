"""Passwords: argon2id. A hash takes about a tenth of a second on purpose: never call these inside a transaction."""

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from pileus.server.domain.errors import ParameterError

_hasher = PasswordHasher()

SHORTEST = 1
LONGEST = 255

_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$JjNQLuTqk4EcC1ROYNkGag$EMGYZ7CvNIzbgUgujzvD5WXQBmkUTFyiMRkbZvRGZKs"
"""Hash of a forgotten text, checked in place of a missing one: an unknown user takes as long as a wrong password."""


def hashed(password: str) -> str:
    """The hash to store."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise ParameterError(f"a password has {SHORTEST} to {LONGEST} characters", parameter="password")
    return _hasher.hash(password)


def matches(password: str, stored: str | None) -> bool:
    """Whether the password is the one behind `stored`. A missing hash and an empty password never match."""
    try:
        _hasher.verify(stored or _NOBODY, password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None and password != ""
