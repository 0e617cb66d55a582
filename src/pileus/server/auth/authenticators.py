"""Who may confirm a password: authenticators, found by entry points and asked in the order of a setting.

Each reads what it needs inside the login's unit of work, and answers after it: hashing is slow, and a directory is far.
The user must be known here either way: an authenticator says that a password is right, never that somebody exists.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points

import structlog

from pileus.server.auth import passwords
from pileus.server.config import keys, value
from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import ParameterError

GROUP = "pileus.server.authenticators"

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Credentials:
    """A login as it was tried. `stored` is the user's own verifier, None for a user that is not there."""

    username: str
    email: str
    full_name: str
    password: str = field(repr=False)
    stored: str | None = field(repr=False)


Check = Callable[[Credentials], bool]
"""Whether the password is right. May be slow; raises `Unavailable` when it cannot be told now."""

Prepare = Callable[[Tx], Check | None]
"""What an entry point is: reads its settings and returns its check, or None when it is not set up."""


class Unavailable(Exception):
    """An authenticator cannot tell at this moment; the text is for the log and holds no secret."""


def prepare(tx: Tx) -> list[tuple[str, Check]]:
    """The checks in force, in order. Names that nothing is installed for are logged and passed over."""
    found = []
    for name in names(value(tx, keys.user_authenticators_order)):
        prepared = _loaded(name)
        check = None if prepared is None else prepared(tx)
        if check is not None:
            found.append((name, check))
    return found


def confirmed(checks: list[tuple[str, Check]], credentials: Credentials) -> bool:
    """Whether one of them finds the password right. An empty password is refused before anybody is asked."""
    if not credentials.password:
        return False
    for name, check in checks:
        try:
            if check(credentials):
                return True
        except Unavailable as error:
            _log.warning("authenticator is unavailable, asking the next", authenticator=name, reason=str(error))
    return False


def names(order: str) -> list[str]:
    """Names of a list that is separated by commas."""
    return [name.strip().lower() for name in order.split(",") if name.strip()]


def check_order(order: str) -> None:
    """431 for an order that names nobody, or somebody who is not installed: a slip would let no one in."""
    installed = sorted({entry.name for entry in entry_points(group=GROUP)})
    wanted = names(order)
    strangers = [name for name in wanted if name not in installed]
    if strangers or not wanted:
        what = f"; {strangers[0]!r} is not installed" if strangers else ""
        raise ParameterError(
            f"{keys.user_authenticators_order.name} names at least one of {', '.join(installed)}{what}",
            parameter="value",
        )


def local(tx: Tx) -> Check:
    """The password behind the user's own hash."""
    return lambda credentials: passwords.matches(credentials.password, credentials.stored)


def md5(tx: Tx) -> Check:
    """Clients of API 2.2, which send the MD5 of the password in its place: at a login, or when it was set."""
    return lambda credentials: passwords.matches_md5(credentials.password, credentials.stored)


@cache
def _loaded(name: str) -> Prepare | None:
    for entry in entry_points(group=GROUP, name=name):
        try:
            loaded: Prepare = entry.load()
        except ImportError as error:
            _log.error("authenticator cannot be loaded", authenticator=name, reason=str(error))
            return None
        return loaded
    _log.error("there is no such authenticator", authenticator=name)
    return None
