"""What a setting is: a typed key that reads its stored text, and refuses text that it cannot use."""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pileus.server.domain.errors import ParameterError

T = TypeVar("T", bool, int, float, str)

ACCOUNT_DEFAULTS = "Account Defaults"
ADVANCED = "Advanced"
ALERT = "Alert"
CONSOLE_PROXY = "Console Proxy"
HIDDEN = "Hidden"
NETWORK = "Network"
PREMIUM = "Premium"
SNAPSHOTS = "Snapshots"
STORAGE = "Storage"
USAGE = "Usage"


@dataclass(frozen=True)
class Key(Generic[T]):
    """One setting. `read` turns stored text into a value, or raises `ParameterError`.

    A `secret` is never shown; a setting that is not `used` may be set but changes nothing.
    """

    name: str
    default: T
    category: str
    description: str
    read: Callable[[str], T]
    secret: bool = False

    @property
    def default_text(self) -> str:
        """The default as it would be stored."""
        return written(self.default)


every: dict[str, Key[Any]] = {}
"""All settings by name."""

_unused: set[str] = set()


def is_used(name: str) -> bool:
    """Whether code obeys the setting."""
    return name not in _unused


def written(value: bool | int | float | str) -> str:
    """A value as it is stored: booleans as true and false, whole numbers without a point."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _declare(key: Key[T]) -> Key[T]:
    if key.name in every:
        raise ValueError(f"setting {key.name} is declared twice")
    every[key.name] = key
    return key


def integer(
    name: str, default: int, category: str, description: str, *, least: int = 0, most: int = 2**63 - 1
) -> Key[int]:
    """A whole number within bounds."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ParameterError(f"{name} must be a whole number, not {text!r}", parameter="value") from None
        return _bounded(name, value, least, most)

    return _declare(Key(name, default, category, description, read))


def number(
    name: str, default: float, category: str, description: str, *, least: float = 0.0, most: float = 1e9
) -> Key[float]:
    """A decimal number within bounds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ParameterError(f"{name} must be a number, not {text!r}", parameter="value") from None
        return _bounded(name, value, least, most)

    return _declare(Key(name, default, category, description, read))


def boolean(name: str, default: bool, category: str, description: str) -> Key[bool]:
    """True or false."""

    def read(text: str) -> bool:
        if text.lower() not in ("true", "false"):
            raise ParameterError(f"{name} must be true or false, not {text!r}", parameter="value")
        return text.lower() == "true"

    return _declare(Key(name, default, category, description, read))


def text(
    name: str,
    default: str,
    category: str,
    description: str,
    *,
    choices: tuple[str, ...] = (),
    check: Callable[[str, str], object] | None = None,
    secret: bool = False,
) -> Key[str]:
    """Text; one of `choices` if there are any. `check` is given the text and the setting's name, and may refuse it."""

    def read(stored: str) -> str:
        if choices and stored not in choices:
            raise ParameterError(f"{name} must be one of {', '.join(choices)}, not {stored!r}", parameter="value")
        if check is not None and stored:
            check(stored, name)
        return stored

    return _declare(Key(name, default, category, description, read, secret=secret))


def cidrs(stored: str, name: str) -> None:
    """Refuse what is no list of networks separated by commas."""
    for one in stored.split(","):
        try:
            ipaddress.ip_network(one.strip(), strict=False)
        except ValueError:
            raise ParameterError(
                f"{name} must hold networks such as 192.0.2.0/24, separated by commas; got {one.strip()!r}",
                parameter="value",
            ) from None


def address_range(stored: str, name: str) -> None:
    """Refuse what is no first and last address with a dash between."""
    first, _, last = stored.partition("-")
    try:
        rising = ipaddress.IPv4Address(first.strip()) < ipaddress.IPv4Address(last.strip())
    except ValueError:
        rising = False
    if not rising:
        raise ParameterError(
            f"{name} must be a first and a last address such as 10.1.2.1-10.1.2.8, not {stored!r}", parameter="value"
        )


def unused(*keys: Key[Any]) -> tuple[Key[Any], ...]:
    """Mark settings that change nothing."""
    _unused.update(key.name for key in keys)
    return keys


N = TypeVar("N", int, float)


def _bounded(name: str, value: N, least: N, most: N) -> N:
    if not least <= value <= most:
        raise ParameterError(f"{name} must be between {least} and {most}, not {value}", parameter="value")
    return value
