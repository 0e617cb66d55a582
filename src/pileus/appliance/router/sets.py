"""The sets and maps of the router's nftables table, and their elements as text (for nft) and as the kernel has them.

An element is `key` or `key : value`, fields apart by " . "; ports and sources of interval sets may be ranges. Text is
what the rest of the router reckons with: it is what people read, and equal elements have equal texts.
"""

import socket
import sys
from dataclasses import dataclass

TABLE_NAME = "pileus"
TABLE = f"ip {TABLE_NAME}"
FAMILY = 2

ADDRESS, PROTOCOL, PORT, MARK = "ipv4_addr", "inet_proto", "inet_service", "mark"

_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
_protocol_names = {number: name for name, number in _PROTOCOLS.items()}


@dataclass(frozen=True)
class Kind:
    """Types of a set's keys, of its values when it is a map, and whether keys are ranges and packets are counted."""

    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    interval: bool = False
    counts: bool = False

    def declared(self, name: str) -> str:
        """The declaration in nft's language."""
        value = f" : {' . '.join(self.value)}" if self.value else ""
        flags = " flags interval;" if self.interval else ""
        counter = " counter;" if self.counts else ""
        return f"{'map' if value else 'set'} {name} {{ type {' . '.join(self.key)}{value};{flags}{counter} }}"


KEPT = "kept"
SHIFTED = "shifted"
FORWARDED = "forwarded"
STATIC = "static"
LEAVING = "leaving"
OWNED = "owned"
BALANCED = "balanced"
FIREWALL = tuple(f"firewall{number}" for number in range(8))
LET_IN = "let_in"
LET_OUT = "let_out"
ENTERED = "entered"
ANSWERED = "answered"
RECEIVED = "received"
SENT = "sent"

SETS = {
    KEPT: Kind((PORT, ADDRESS, PROTOCOL), (ADDRESS,), interval=True),
    SHIFTED: Kind((PORT, ADDRESS, PROTOCOL), (ADDRESS, PORT)),
    FORWARDED: Kind((ADDRESS, PORT, ADDRESS, PROTOCOL), interval=True),
    STATIC: Kind((ADDRESS,), (ADDRESS,)),
    LEAVING: Kind((ADDRESS,), (ADDRESS,)),
    OWNED: Kind((ADDRESS, ADDRESS)),
    BALANCED: Kind((ADDRESS, PORT)),
    **dict.fromkeys(FIREWALL, Kind((PORT, ADDRESS, ADDRESS, PROTOCOL), (MARK,), interval=True)),
    LET_IN: Kind((MARK,), counts=True),
    LET_OUT: Kind((MARK,), counts=True),
    ENTERED: Kind((PORT, ADDRESS, PROTOCOL), interval=True, counts=True),
    ANSWERED: Kind((PORT, ADDRESS, PROTOCOL), interval=True, counts=True),
    RECEIVED: Kind((ADDRESS,), counts=True),
    SENT: Kind((ADDRESS,), counts=True),
}
"""The kernel looks for a field of an interval set among what the fields before have left: what tells most comes first.

`kept` leads to a guest with the port as it is, `shifted` to another port (no ranges: the kernel cannot count along).
`forwarded` holds (guest, guest's port, public address, protocol) and lets the packets through.
`static` leads from a public address to the guest that has it whole, `leaving` from the guest to its address, `owned`
is both in one. `balanced` are the doors of balancers.
The `firewall` maps (port, source, public address, protocol) give a new connection the mark of the rule that lets it in;
there are several, as to take an element out the kernel goes through all of its map. A rule is in that of its mark.
`let_in` and `let_out` hold the marks of rules that are, and count what their connections receive and send; `entered`
and `answered` count the same of forwards and balancers, `received` and `sent` of public addresses."""


def spanned(start: int, end: int) -> str:
    """A range of ports as text."""
    return str(start) if start == end else f"{start}-{end}"


def packed(kind: Kind, text: str) -> tuple[bytes, bytes, bytes]:
    """First key, last key and value of an element, as the kernel has them; the value is empty for a set."""
    key, _, value = text.partition(" : ")
    pairs = [_range(name, field) for name, field in zip(kind.key, key.split(" . "), strict=True)]
    values = (
        [_range(name, field)[0] for name, field in zip(kind.value, value.split(" . "), strict=True)] if value else []
    )
    return b"".join(low for low, _ in pairs), b"".join(high for _, high in pairs), b"".join(values)


def unpacked(kind: Kind, start: bytes, end: bytes) -> str:
    """The text of a key, from its first and last value."""
    fields = [
        _text(name, start[at : at + 4], end[at : at + 4]) for name, at in zip(kind.key, range(0, 64, 4), strict=False)
    ]
    return " . ".join(fields)


def _range(name: str, text: str) -> tuple[bytes, bytes]:
    match name:
        case "ipv4_addr":
            address, _, prefix = text.partition("/")
            low = socket.inet_aton(address)
            span = (1 << (32 - int(prefix))) - 1 if prefix else 0
            return low, (int.from_bytes(low, "big") | span).to_bytes(4, "big")
        case "inet_proto":
            number = bytes([_PROTOCOLS[text], 0, 0, 0])
            return number, number
        case "inet_service":
            first, _, last = text.partition("-")
            return _port(first), _port(last or first)
    # Marks are numbers of this machine, not of the network.
    mark = int(text, 16).to_bytes(4, sys.byteorder)
    return mark, mark


def _port(text: str) -> bytes:
    return int(text).to_bytes(2, "big") + b"\0\0"


def _text(name: str, low: bytes, high: bytes) -> str:
    match name:
        case "ipv4_addr":
            return socket.inet_ntoa(low) + _prefix(low, high)
        case "inet_proto":
            return _protocol_names.get(low[0], str(low[0]))
        case "inet_service":
            return spanned(int.from_bytes(low[:2], "big"), int.from_bytes(high[:2], "big"))
    return marked(int.from_bytes(low[:4], sys.byteorder))


def _prefix(low: bytes, high: bytes) -> str:
    span = int.from_bytes(low, "big") ^ int.from_bytes(high, "big")
    return f"/{32 - span.bit_length()}" if span else ""


def marked(number: int) -> str:
    """A mark as text."""
    return f"{number:#010x}"
