"""The options of a directory of images, as the agent's configuration gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pileus.appliance.storage.fetching import Patience


@dataclass(frozen=True)
class StoreOptions:
    """`path` is where images are kept (default: the host's own state directory). `listen` and `port` are where they
    are served (default: the host's address). `source_ca` (PEM file) is believed of https sources, too."""

    path: str = ""
    listen: str = ""
    port: int = 9443
    source_ca: str = ""
    connect_seconds: float = 15.0
    stall_seconds: float = 30.0
    total_seconds: float = 4 * 3600.0

    @property
    def patience(self) -> Patience:
        """How long to wait for sources."""
        return Patience(self.connect_seconds, self.stall_seconds, self.total_seconds)


def parse(options: Mapping[str, Any]) -> StoreOptions:
    """Raises ValueError that names the option."""
    known = {field.name: field.default for field in fields(StoreOptions)}
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise ValueError(f"{name}: no such option; there are {', '.join(sorted(known))}")
        wanted = type(known[name])
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not wanted:
            raise ValueError(f"{name}: {value!r} is not of type {wanted.__name__}")
        values[name] = value
    parsed = StoreOptions(**values)
    if not 0 <= parsed.port <= 65535:
        raise ValueError(f"port: {parsed.port} is no port")
    for name in ("connect_seconds", "stall_seconds", "total_seconds"):
        if getattr(parsed, name) <= 0:
            raise ValueError(f"{name}: a positive number is needed")
    return parsed
