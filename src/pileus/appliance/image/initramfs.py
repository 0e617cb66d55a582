"""Writes an initial RAM disk: the "newc" cpio archive that Linux unpacks (kernel documentation, buffer-format)."""

import stat
from collections.abc import Iterable
from dataclasses import dataclass

MAGIC = b"070701"
TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One member of the archive, owned by root. `mode` holds the file type too."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)

    @staticmethod
    def directory(name: str, permissions: int = 0o755) -> "Entry":
        return Entry(name, stat.S_IFDIR | permissions)

    @staticmethod
    def file(name: str, data: bytes, permissions: int) -> "Entry":
        return Entry(name, stat.S_IFREG | permissions, data)

    @staticmethod
    def character_device(name: str, major: int, minor: int) -> "Entry":
        return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive as bytes, without times: equal entries give equal bytes. Parents come before their children."""
    parts = [_member(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join([*parts, _member(0, Entry(TRAILER, 0))])


def _member(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 0 if entry.name == TRAILER else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device, len(name), 0)
    head = MAGIC + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
