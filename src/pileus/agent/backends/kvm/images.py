"""Disk images: looked at before any tool opens them, cloned, converted.

A QCOW2 header may name another file of the host as backing or data file, and `qemu-img info` would open it: the header
is read here first. Formats are never guessed from content beyond QCOW2's magic; anything else is raw.
"""

import asyncio
import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import programs
from pileus.wire.operations import ImageFacts, Reason

SECTOR = 512
CONVERT_SECONDS = 3600.0

_MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQ")
_INCOMPATIBLE = struct.Struct(">Q")
_INCOMPATIBLE_AT = 72
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
# An image may make the tool ask for memory or time without end.
_BOUNDED = ["prlimit", "--as=1073741824", "--cpu=30", "--"]


@dataclass(frozen=True)
class Header:
    """What an image says of itself. `backed` and `foreign_data` are true when it would read another file."""

    format: str
    virtual_bytes: int
    backed: bool = False
    foreign_data: bool = False


def read_header(path: Path) -> Header:
    """The header of an image file. Raises Refused (REJECTED) when it is a QCOW2 we do not know."""
    with path.open("rb") as file:
        head = file.read(_INCOMPATIBLE_AT + _INCOMPATIBLE.size)
        size = os.fstat(file.fileno()).st_size
    if head[:4] != _MAGIC:
        return Header("raw", size)
    if len(head) < _HEADER.size + 4:
        raise Refused(Reason.REJECTED, "the QCOW2 header is cut short")
    _, version, backing_at, backing_length, _, virtual = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise Refused(Reason.REJECTED, f"QCOW2 version {version} is not known")
    incompatible = 0
    if version == 3:
        if len(head) < _INCOMPATIBLE_AT + _INCOMPATIBLE.size:
            raise Refused(Reason.REJECTED, "the QCOW2 header is cut short")
        (incompatible,) = _INCOMPATIBLE.unpack_from(head, _INCOMPATIBLE_AT)
        if incompatible & ~(_DIRTY | _DATA_FILE | _COMPRESSION | _EXTENDED_L2):
            raise Refused(
                Reason.REJECTED, f"the QCOW2 image is corrupt or from the future (features {incompatible:#x})"
            )
    return Header("qcow2", virtual, bool(backing_at or backing_length), bool(incompatible & _DATA_FILE))


async def inspect(path: Path, max_bytes: int) -> Header:
    """Look whether an image from outside may come in. Raises Refused (REJECTED) and says why when it may not."""
    header = await asyncio.to_thread(read_header, path)
    if header.backed:
        raise Refused(Reason.REJECTED, "the image has a backing file")
    if header.foreign_data:
        raise Refused(Reason.REJECTED, "the image has an external data file")
    if not 0 < header.virtual_bytes <= max_bytes:
        raise Refused(
            Reason.REJECTED, f"the image's disk would have {header.virtual_bytes} bytes; {max_bytes} are allowed"
        )
    described = await programs.attempt(
        [*_BOUNDED, "qemu-img", "info", "--output=json", "-f", header.format, str(path)]
    )  # fmt: skip
    if described.status != 0:
        raise Refused(Reason.REJECTED, f"the image cannot be read as {header.format}")
    said = json.loads(described.out)
    details = said.get("format-specific", {}).get("data", {})
    if said.get("backing-filename") or said.get("full-backing-filename") or details.get("data-file"):
        raise Refused(Reason.REJECTED, "the image refers to another file")
    if said.get("encrypted"):
        raise Refused(Reason.REJECTED, "the image is encrypted")
    if said.get("virtual-size") != header.virtual_bytes and header.format == "qcow2":
        raise Refused(Reason.REJECTED, "the image's header contradicts itself")
    return header


async def to_plain_qcow2(source: Path, source_format: str, target: Path) -> None:
    """Write `source` as an uncompressed QCOW2 without any reference to `target`."""
    convert = ["qemu-img", "convert", "-q", "-f", source_format, "-O", "qcow2", "-o", "compat=1.1"]
    await programs.run([*convert, str(source), str(target)], seconds=CONVERT_SECONDS)


async def create(target: Path, size_bytes: int, backing: str = "") -> None:
    """Make an empty QCOW2 of `size_bytes`, or a clone of `backing`, named as seen from the target's directory."""
    chain = ["-b", backing, "-F", "qcow2"] if backing else []
    await programs.run(["qemu-img", "create", "-q", "-f", "qcow2", *chain, str(target), str(size_bytes)])


def facts(path: Path, sha256: str = "") -> ImageFacts:
    """Sizes of an image of our own."""
    return ImageFacts(
        virtual_bytes=read_header(path).virtual_bytes,
        physical_bytes=path.stat().st_blocks * SECTOR,
        sha256=sha256,
    )


def whole_sectors(size_bytes: int) -> int:
    """A size, rounded up to what a disk can have."""
    return -(-size_bytes // SECTOR) * SECTOR
