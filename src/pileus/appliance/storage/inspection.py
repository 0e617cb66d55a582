"""Looking at an image from outside before anything opens it, under limits of memory and time.

A QCOW2 header may name other files of this machine as backing or data file, and even looking at such an image with a
tool may open them: the header is read here first, and a tool sees only what passed.
"""

import asyncio
import contextlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pileus.wire.operations import Reason, Refused

QCOW2_MAGIC = b"QFI\xfb"

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_VERSION3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_HARMLESS = _DIRTY | _COMPRESSION | _EXTENDED_L2
_BACKING_FORMAT = 0xE2792ACA
_DATA_FILE_NAME = 0x44415441
_ENCRYPTION = 0x0537BE77

INFO_LIMITS = ("--as=1073741824", "--cpu=30")
INFO_SECONDS = 60.0
CONVERT_LIMITS = ("--as=2147483648", "--cpu=1800")
CONVERT_SECONDS = 1800.0


@dataclass(frozen=True)
class _Ran:
    status: int
    out: bytes
    err: bytes


async def require_qcow2(path: Path, *, max_bytes: int) -> int:
    """The virtual size in bytes of a QCOW2 image that stands alone. Raises Refused (REJECTED) and says why if not."""
    promised = await asyncio.to_thread(read_header, path)
    if not 0 < promised <= max_bytes:
        raise Refused(Reason.REJECTED, f"the image's disk would have {promised} bytes; {max_bytes} are allowed")
    said = await _info(path, "qcow2")
    details = said.get("format-specific", {}).get("data", {})
    if said.get("backing-filename") or said.get("full-backing-filename"):
        raise Refused(Reason.REJECTED, "the image has a backing file")
    if details.get("data-file") or details.get("data-file-raw"):
        raise Refused(Reason.REJECTED, "the image has an external data file")
    if said.get("encrypted"):
        raise Refused(Reason.REJECTED, "the image is encrypted")
    if details.get("corrupt"):
        raise Refused(Reason.REJECTED, "the image is marked as corrupt")
    if said.get("virtual-size") != promised:
        raise Refused(Reason.REJECTED, "the image's header contradicts itself")
    return promised


def read_header(path: Path) -> int:
    """Read a QCOW2 header and return the virtual size in bytes. Raises Refused (REJECTED) for what may not come in."""
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if head[:4] != QCOW2_MAGIC:
        raise Refused(Reason.REJECTED, "the image is not QCOW2")
    if len(head) < _HEADER.size:
        raise Refused(Reason.REJECTED, "the QCOW2 header is cut short")
    _, version, backing_at, backing_length, cluster_bits, virtual, crypt, *_ = _HEADER.unpack_from(head)
    if version not in (2, 3):
        raise Refused(Reason.REJECTED, f"QCOW2 version {version} is not known")
    if backing_at or backing_length:
        raise Refused(Reason.REJECTED, "the image has a backing file")
    if crypt:
        raise Refused(Reason.REJECTED, "the image is encrypted")
    if not 9 <= cluster_bits <= 21:
        raise Refused(Reason.REJECTED, f"the QCOW2 image has clusters of 2^{cluster_bits} bytes")
    header_length = _HEADER.size
    if version == 3:
        if len(head) < _HEADER.size + _VERSION3.size:
            raise Refused(Reason.REJECTED, "the QCOW2 header is cut short")
        incompatible, _, _, _, header_length = _VERSION3.unpack_from(head, _HEADER.size)
        if incompatible & _DATA_FILE:
            raise Refused(Reason.REJECTED, "the image has an external data file")
        if incompatible & _CORRUPT:
            raise Refused(Reason.REJECTED, "the image is marked as corrupt")
        if incompatible & ~_HARMLESS:
            raise Refused(Reason.REJECTED, f"the QCOW2 image needs unknown features ({incompatible:#x})")
    _require_harmless_extensions(head, header_length, 1 << cluster_bits)
    return int(virtual)


async def raw_to_qcow2(source: Path, target: Path) -> None:
    """Write a raw image as QCOW2. The source's format is told and never guessed. Raises Refused (NO_ROOM, FAILED)."""
    ran = await _run(
        [*_limited(CONVERT_LIMITS), "qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", str(source), str(target)],
        seconds=CONVERT_SECONDS,
    )
    if ran.status == 0:
        return
    text = ran.err.decode(errors="replace").strip()
    raise Refused(Reason.FAILED, f"the image cannot be converted: {text[-300:].splitlines()[-1] if text else '?'}")


def _require_harmless_extensions(head: bytes, at: int, cluster_bytes: int) -> None:
    end = min(len(head), cluster_bytes)
    while at + _EXTENSION.size <= end:
        kind, length = _EXTENSION.unpack_from(head, at)
        if kind == 0:
            return
        if kind == _DATA_FILE_NAME:
            raise Refused(Reason.REJECTED, "the image has an external data file")
        if kind == _BACKING_FORMAT:
            raise Refused(Reason.REJECTED, "the image has a backing file")
        if kind == _ENCRYPTION:
            raise Refused(Reason.REJECTED, "the image is encrypted")
        at += _EXTENSION.size + -(-length // 8) * 8
    if at > end:
        raise Refused(Reason.REJECTED, "the QCOW2 header contradicts itself")


async def _info(path: Path, image_format: str) -> dict[str, Any]:
    ran = await _run(
        [*_limited(INFO_LIMITS), "qemu-img", "info", "--output=json", "-f", image_format, str(path)],
        seconds=INFO_SECONDS,
    )
    if ran.status != 0:
        raise Refused(Reason.REJECTED, f"the image cannot be read as {image_format.upper()}")
    said = json.loads(ran.out)
    if not isinstance(said, dict):
        raise Refused(Reason.REJECTED, f"the image cannot be read as {image_format.upper()}")
    return said


def _limited(limits: Sequence[str]) -> list[str]:
    return ["prlimit", *limits, "--"]


async def _run(argv: Sequence[str], *, seconds: float) -> _Ran:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), seconds)
    except TimeoutError as error:
        raise Refused(Reason.REJECTED, f"looking at the image took more than {seconds:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return _Ran(process.returncode or 0, out, err)
