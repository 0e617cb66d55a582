"""The system template on a host: fetched once from secondary storage, kept beside the routers that boot from it.

Without hardware virtualization a guest needs seconds to unpack a kernel; the host does it once. So the kernel and the
RAM disk are taken out of the template's boot partition, where that is the FAT of our recipe and the host has mtools;
otherwise the template is booted from its disk as any other.
"""

import asyncio
import lzma
import os
import shutil
import struct
import zlib
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import structlog

from pileus.agent.backend import Credentials, Refused
from pileus.agent.backends.kvm import images, programs
from pileus.agent.backends.kvm.download import download
from pileus.wire.operations import Reason, RouterMachine

BOOT_OFFSET = 1 << 20
"""Where the boot partition of the recipe begins."""
DISK, KERNEL, INITRD, COMMAND_LINE = "disk.qcow2", "vmlinux", "initrd", "cmdline"

_SETUP = struct.Struct("<B")
_PAYLOAD = struct.Struct("<II")
_SETUP_SECTORS_AT = 0x1F1
_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_PAYLOAD_AT = 0x248
_ELF = b"\x7fELF"

log = structlog.get_logger()


@dataclass(frozen=True)
class SystemImage:
    """Where a template lies. `kernel` None boots the disk; else `initrd` and `command_line` go with it."""

    disk: Path
    kernel: Path | None = None
    initrd: Path | None = None
    command_line: str = ""


class RouterImages:
    """System templates of one host in a directory of their own, each under its checksum."""

    def __init__(self, directory: Path, *, credentials: Credentials, max_image_bytes: int) -> None:
        self._directory = directory
        self._credentials = credentials
        self._max_image_bytes = max_image_bytes
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ready(self, machine: RouterMachine) -> SystemImage:
        """Have the template here. Raises Refused as a fetch of any template does."""
        place = self.place(machine.sha256)
        async with self._locks[machine.sha256]:
            if not await asyncio.to_thread(place.exists):
                await self._fetch(machine, place)
            return await asyncio.to_thread(_described, place)

    async def keep_only(self, checksums: Collection[str]) -> None:
        """Remove the templates that no router of this host boots from."""
        if self._directory.exists():
            for place in list(self._directory.iterdir()):
                if place.name not in checksums and not self._locks[place.name].locked():
                    await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    def place(self, sha256: str) -> Path:
        """Where a template lies, there or not."""
        if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise Refused(Reason.REJECTED, f"no SHA-256 checksum: {sha256!r}")
        return self._directory / sha256

    async def _fetch(self, machine: RouterMachine, place: Path) -> None:
        half = place.with_name(f"{place.name}.part")
        await asyncio.to_thread(shutil.rmtree, half, ignore_errors=True)
        try:
            await asyncio.to_thread(half.mkdir, mode=0o700, parents=True)
            fetched = half / "fetched"
            free = os.statvfs(half)
            room = free.f_bavail * free.f_frsize
            await download(machine.url, fetched, machine.sha256, room, self._credentials, _no_progress)
            header = await images.inspect(fetched, self._max_image_bytes)
            await images.to_plain_qcow2(fetched, header.format, half / DISK)
            await self._take_kernel(half)
            await asyncio.to_thread(fetched.unlink)
            await asyncio.to_thread(half.rename, place)
        except programs.Failed as error:
            raise Refused(Reason.FAILED, f"the system template cannot be converted: {error}") from error
        except OSError as error:
            raise Refused(Reason.FAILED, f"the system template cannot be kept: {error.strerror}") from error
        finally:
            await asyncio.to_thread(shutil.rmtree, half, ignore_errors=True)

    async def _take_kernel(self, half: Path) -> None:
        raw = half / "raw"
        partition = f"{raw}@@{BOOT_OFFSET}"
        try:
            await programs.run(["qemu-img", "convert", "-q", "-f", "qcow2", "-O", "raw", str(half / DISK), str(raw)])
            for name in ("vmlinuz", "initrd", "syslinux.cfg"):
                await programs.run(["mcopy", "-n", "-i", partition, f"::{name}", str(half / name)])
            unpacked = await asyncio.to_thread(lambda: unpack((half / "vmlinuz").read_bytes()))
            line = command_line((half / "syslinux.cfg").read_text(errors="replace"))
            if unpacked and line:
                (half / KERNEL).write_bytes(unpacked)
                (half / COMMAND_LINE).write_text(line)
        except programs.Failed as error:
            log.info("the system template is booted from its disk", reason=str(error))
        finally:
            for name in ("raw", "vmlinuz", "syslinux.cfg"):
                (half / name).unlink(missing_ok=True)


def unpack(image: bytes) -> bytes:
    """The ELF kernel in a bzImage (Linux boot protocol 2.08), b"" when it is none or packed in a way not known here."""
    if len(image) < _PAYLOAD_AT + _PAYLOAD.size or image[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return b""
    (sectors,) = _SETUP.unpack_from(image, _SETUP_SECTORS_AT)
    offset, length = _PAYLOAD.unpack_from(image, _PAYLOAD_AT)
    begin = ((sectors or 4) + 1) * images.SECTOR + offset
    payload = image[begin : begin + length]
    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            kernel = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(b"\x1f\x8b"):
            kernel = zlib.decompressobj(wbits=31).decompress(payload)
        else:
            return b""
    except (lzma.LZMAError, zlib.error):
        return b""
    return kernel if kernel.startswith(_ELF) else b""


def command_line(config: str) -> str:
    """What syslinux would hand to the kernel; "" when its configuration does not say."""
    for line in config.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.upper() == "APPEND":
            return rest.strip()
    return ""


def _described(place: Path) -> SystemImage:
    kernel = place / KERNEL
    if not kernel.exists():
        return SystemImage(place / DISK)
    return SystemImage(place / DISK, kernel, place / INITRD, (place / COMMAND_LINE).read_text())


def _no_progress(percent: int, text: str) -> None:
    """Nobody watches a router's template come."""
