"""Reads messages, and of a config that is much like the one before only what differs.

A config is whole each time; tens of thousands of rules and leases come again as they were. Their text is compared
first: what has the same text is the same object as before, which later steps see at a glance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pileus.wire.appliance import AnyToRouter, Configure, ToRouter, decode_to_router
from pileus.wire.router import FirewallRule, GuestData, Lease, PortForward, RouterConfig

_LONG: Mapping[str, type[msgspec.Struct]] = {
    "leases": Lease,
    "guests": GuestData,
    "port_forwards": PortForward,
    "firewall": FirewallRule,
}
"""Fields of a config that may be long, and what they are tuples of."""

_SHORT = tuple(one.name for one in msgspec.structs.fields(RouterConfig) if one.name not in _LONG)
_NOTHING = msgspec.Raw(b"[]")

_fields: list[tuple[str, Any, Any]] = [
    (one.name, msgspec.Raw, _NOTHING) if one.name in _LONG else (one.name, one.type, one.default)
    for one in msgspec.structs.fields(RouterConfig)
]
_Config = msgspec.defstruct("_Config", [entry if entry[2] is not msgspec.NODEFAULT else entry[:2] for entry in _fields])
_Configure = msgspec.defstruct("_Configure", [("config", _Config)], bases=(ToRouter,), tag="configure")
_decode: Callable[[bytes], Any] = msgspec.json.Decoder(_Configure).decode
_split: Callable[[bytes], list[msgspec.Raw]] = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_one: Mapping[str, Callable[[bytes], msgspec.Struct]] = {
    name: msgspec.json.Decoder(kind).decode for name, kind in _LONG.items()
}


@dataclass
class _Part:
    """A long field as it came last: its text, its objects by their texts, and all of them in order."""

    text: bytes = b"[]"
    known: Mapping[bytes, msgspec.Struct] = field(default_factory=dict)
    values: tuple[msgspec.Struct, ...] = ()


class Reader:
    """Remembers the last config it has read."""

    def __init__(self) -> None:
        self._parts = {name: _Part() for name in _LONG}

    def read(self, line: bytes) -> AnyToRouter:
        """The message; raises msgspec.DecodeError with the place in it that is wrong."""
        try:
            loose = _decode(line)
            long = {name: self._part(name, bytes(getattr(loose.config, name))).values for name in _LONG}
        except msgspec.DecodeError:
            # Another message, or a wrong one: which the whole decoder says better.
            message: AnyToRouter = decode_to_router(line)
            return message
        others = {one: getattr(loose.config, one) for one in _SHORT}
        fields: dict[str, Any] = {**others, **long}
        return Configure(RouterConfig(**fields))

    def _part(self, name: str, text: bytes) -> _Part:
        before = self._parts[name]
        if text == before.text:
            return before
        decode = _decode_one[name]
        texts = list(map(bytes, _split(text)))
        known = before.known
        values = tuple(known.get(one) or decode(one) for one in texts)
        self._parts[name] = _Part(text, dict(zip(texts, values, strict=True)), values)
        return self._parts[name]
