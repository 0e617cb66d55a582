"""The last stop before a log line is written: values under names that tell of secrets are not."""

from collections.abc import Mapping, MutableMapping
from typing import Any

_SECRET = (
    *("password", "passwd", "secret", "token", "sessionkey", "signature", "apikey", "api_key", "private"),
    *("credential", "cookie", "authorization", "preshared", "psk"),
)
HIDDEN = "***"


def redact(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide the values of secret names, at any depth."""
    return {name: _hide(name, value) for name, value in line.items()}


def _hide(name: str, value: Any) -> Any:
    if any(part in name.lower() for part in _SECRET) and value is not None:
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(inner): _hide(str(inner), entry) for inner, entry in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hide(name, entry) for entry in value]
    return value
