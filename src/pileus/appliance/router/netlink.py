"""Changes and reads elements of nftables sets over netlink, one batch as one transaction.

`nft` and its library fetch a whole interval set before they take one element out of it (60 ms where it has 10,000);
the kernel needs no such thing. Declarations and rules are left to `nft`: here are elements only, of the types in
`sets`.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.sets import FAMILY, SETS, TABLE_NAME, Kind, packed, unpacked

_HEAD = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_NETFILTER = 12
_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW, _GET, _DELETE = 12, 13, 14
_REQUEST, _ACK, _CREATE, _EXCLUSIVE, _DUMP, _INTERRUPTED = 0x1, 0x4, 0x400, 0x200, 0x300, 0x10
_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_KEY, _DATA, _EXPRESSION, _KEY_END = 1, 2, 7, 10
_VALUE = _ITEM = 1
_EXPRESSION_DATA = 2
_COUNTER_BYTES = 1
_SEND_BUFFER_FORCE, _RECEIVE_BUFFER_FORCE = 32, 33

ELEMENTS_A_MESSAGE = 400
"""The length of an attribute has 16 bits."""
BUFFER_BYTES = 4 * 1024 * 1024
ANSWER_BYTES = 64 * 1024
ANSWER_SECONDS = 30.0
DUMPS = 10
"""How often a read that a change came between is begun again."""


@dataclass(frozen=True)
class Delta:
    """What comes and goes, by set: elements as text, see `sets`."""

    gone: Mapping[str, frozenset[str]]
    come: Mapping[str, frozenset[str]]


def apply(delta: Delta) -> None:
    """All of `delta` or nothing, gone before come; raises StepFailed with the set that would not have it."""
    commands = [
        (verb, name, part)
        for verb, changes in ((_DELETE, delta.gone), (_NEW, delta.come))
        for name, elements in changes.items()
        for part in _parts(sorted(elements))
    ]
    messages = [_message(_BATCH_BEGIN, _REQUEST, 0, b"", resource=_NFTABLES)]
    for number, (verb, name, part) in enumerate(commands, start=1):
        flags = _REQUEST | _ACK | (_CREATE | _EXCLUSIVE if verb == _NEW else 0)
        messages.append(_message(_NFTABLES << 8 | verb, flags, number, _elements(name, part, values=verb == _NEW)))
    messages.append(_message(_BATCH_END, _REQUEST, 0, b"", resource=_NFTABLES))
    with _open() as kernel:
        try:
            kernel.send(b"".join(messages))
            waiting = set(range(1, len(commands) + 1))
            while waiting:
                for kind, _, number, body in _answers(kernel.recv(ANSWER_BYTES)):
                    code = -struct.unpack_from("=i", body)[0] if kind == _ERROR else 0
                    if code:
                        where = f" in {commands[number - 1][1]}" if number else ""
                        raise StepFailed(f"nftables: elements{where}: {os.strerror(code)}")
                    waiting.discard(number)
        except OSError as error:
            raise StepFailed(f"nftables: {error.strerror or error}") from error


def counted(name: str) -> dict[str, int]:
    """Bytes by element of a set that counts, {} when there is no such set; raises StepFailed."""
    for _ in range(DUMPS):
        try:
            found = _dump(name)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StepFailed(f"nftables: reading {name}: {error.strerror or error}") from error
        if found is not None:
            return found
    raise StepFailed(f"nftables: {name} changes more quickly than it can be read")


def _dump(name: str) -> dict[str, int] | None:
    """As `counted`; None when a change came between."""
    kind = SETS[name]
    found: dict[str, int] = {}
    with _open() as kernel:
        kernel.send(_message(_NFTABLES << 8 | _GET, _REQUEST | _DUMP, 1, _place(name)))
        while True:
            for answer, flags, _, body in _answers(kernel.recv(ANSWER_BYTES)):
                if flags & _INTERRUPTED:
                    return None
                if answer in (_ERROR, _DONE):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                    return found
                found.update(_counts(kind, body[4:]))


def _counts(kind: Kind, body: bytes) -> Iterator[tuple[str, int]]:
    listed = dict(_attributes(body)).get(_LIST_ELEMENTS, b"")
    for _, element in _attributes(listed):
        parts = dict(_attributes(element))
        start = dict(_attributes(parts[_KEY]))[_VALUE]
        end = dict(_attributes(parts[_KEY_END]))[_VALUE] if _KEY_END in parts else start
        if _EXPRESSION in parts:
            numbers = dict(_attributes(dict(_attributes(parts[_EXPRESSION]))[_EXPRESSION_DATA]))
            yield unpacked(kind, start, end), int.from_bytes(numbers[_COUNTER_BYTES], "big")


def _open() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER)
    kernel.bind((0, 0))
    kernel.settimeout(ANSWER_SECONDS)
    # Beyond the limit for everybody: a batch is one message to the kernel, however long.
    for option in (_SEND_BUFFER_FORCE, _RECEIVE_BUFFER_FORCE):
        kernel.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return kernel


def _parts(elements: Sequence[str]) -> Iterator[Sequence[str]]:
    for begin in range(0, len(elements), ELEMENTS_A_MESSAGE):
        yield elements[begin : begin + ELEMENTS_A_MESSAGE]


def _place(name: str) -> bytes:
    table = _attribute(_LIST_TABLE, TABLE_NAME.encode() + b"\0")
    return table + _attribute(_LIST_SET, name.encode() + b"\0")


def _elements(name: str, elements: Iterable[str], *, values: bool) -> bytes:
    kind = SETS[name]
    listed = b"".join(_element(kind, text, values=values) for text in elements)
    return _place(name) + _attribute(_LIST_ELEMENTS | _NESTED, listed)


def _element(kind: Kind, text: str, *, values: bool) -> bytes:
    start, end, value = packed(kind, text)
    parts = _attribute(_KEY | _NESTED, _attribute(_VALUE, start))
    if kind.interval:
        parts += _attribute(_KEY_END | _NESTED, _attribute(_VALUE, end))
    if kind.value and values:
        parts += _attribute(_DATA | _NESTED, _attribute(_VALUE, value))
    return _attribute(_ITEM | _NESTED, parts)


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def _message(kind: int, flags: int, number: int, body: bytes, *, resource: int = 0) -> bytes:
    family = 0 if kind in (_BATCH_BEGIN, _BATCH_END) else FAMILY
    whole = bytes([family, 0]) + resource.to_bytes(2, "big") + body
    return _HEAD.pack(_HEAD.size + len(whole), kind, flags, number, 0) + whole


def _answers(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Kind, flags, number and body of each message."""
    while len(data) >= _HEAD.size:
        length, kind, flags, number, _ = _HEAD.unpack_from(data)
        yield kind, flags, number, data[_HEAD.size : length]
        data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3
