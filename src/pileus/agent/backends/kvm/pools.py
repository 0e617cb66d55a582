"""Primary storage pools as directories: `templates/` and `volumes/` below the pool's path, or an NFS mount of ours.

Files appear under their names only when whole. A pool may be shared with other hosts: temporary files carry this
host's UUID, and clones refer to their template by relative path, because each host mounts where it likes.
"""

import asyncio
import errno
import os
import re
from pathlib import Path

from pileus.agent.backend import Credentials, Progressed, Refused
from pileus.agent.backends.kvm import images, programs
from pileus.agent.backends.kvm.download import download
from pileus.wire.operations import FetchTemplate, ImageFacts, PoolFacts, Reason
from pileus.wire.places import PoolKind, PoolRef

TEMPLATES = "templates"
VOLUMES = "volumes"
MOUNT_SECONDS = 45.0
LOCKS = 64
"""Files share so many locks: one each would pile up for ever. Nobody holds two at once."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,253}")


class Pools:
    """The pools of one host. `mounts` is the directory below which we mount network file systems."""

    def __init__(self, *, host_uuid: str, mounts: Path, credentials: Credentials, max_image_bytes: int) -> None:
        self._host_uuid = host_uuid
        self._mounts = mounts
        self._credentials = credentials
        self._max_image_bytes = max_image_bytes
        self._swept: set[Path] = set()
        self._locks = tuple(asyncio.Lock() for _ in range(LOCKS))

    def directory(self, pool: PoolRef) -> Path:
        """Where the pool is on this host."""
        if pool.kind is PoolKind.NETWORK_FILESYSTEM:
            return self._mounts / _checked(pool.uuid)
        path = Path(pool.path)
        if not path.is_absolute() or ".." in path.parts:
            raise Refused(Reason.REJECTED, f"the path of a pool is absolute, not {pool.path!r}")
        return path

    def volume(self, pool: PoolRef, name: str) -> Path:
        """The file of a volume, there or not."""
        return self.directory(pool) / VOLUMES / _checked(name)

    def template(self, pool: PoolRef, name: str) -> Path:
        """The file of a template, there or not."""
        return self.directory(pool) / TEMPLATES / _checked(name)

    async def attach(self, pool: PoolRef) -> PoolFacts:
        """Make the pool usable and measure it."""
        directory = self.directory(pool)
        async with self._lock(directory):
            if pool.kind is PoolKind.NETWORK_FILESYSTEM:
                await self._mount(pool, directory)
            elif pool.kind is PoolKind.SHARED_MOUNT_POINT and not directory.is_dir():
                raise Refused(Reason.MISSING, f"the shared mount point {directory} is not there on this host")
            return await asyncio.to_thread(self._prepare, directory)

    async def detach(self, pool: PoolRef) -> None:
        """Unmount what we mounted; a directory simply stays."""
        directory = self.directory(pool)
        async with self._lock(directory):
            self._swept.discard(directory)
            if pool.kind is not PoolKind.NETWORK_FILESYSTEM:
                return
            if _is_mounted(directory):
                await _or_refuse(["umount", str(directory)], f"{directory} cannot be unmounted")
            await asyncio.to_thread(_drop_directory, directory)

    async def fetch_template(self, order: FetchTemplate, progressed: Progressed) -> ImageFacts:
        """Bring a template into the pool; see the operation of the same name."""
        target = self.template(order.pool, order.name)
        async with self._lock(target):
            if not await _is_there(target):
                await self._fetch(order, target, progressed)
            return await asyncio.to_thread(images.facts, target, order.sha256)

    async def remove_template(self, pool: PoolRef, name: str) -> None:
        target = self.template(pool, name)
        async with self._lock(target):
            await asyncio.to_thread(target.unlink, missing_ok=True)

    async def create_volume(self, pool: PoolRef, name: str, size_bytes: int, template: str) -> ImageFacts:
        """Make sure the volume is there; one that is there already stays as it is."""
        target = self.volume(pool, name)
        async with self._lock(target):
            if not await _is_there(target):
                await self._create(pool, target, size_bytes, template)
            return await asyncio.to_thread(images.facts, target)

    async def delete_volume(self, pool: PoolRef, name: str) -> None:
        target = self.volume(pool, name)
        async with self._lock(target):
            await asyncio.to_thread(target.unlink, missing_ok=True)

    async def _fetch(self, order: FetchTemplate, target: Path, progressed: Progressed) -> None:
        raw, plain = self._temporary(target, "download"), self._temporary(target, "part")
        try:
            free = await asyncio.to_thread(_available, target.parent)
            await download(order.url, raw, order.sha256, free, self._credentials, progressed)
            header = await images.inspect(raw, self._max_image_bytes)
            progressed(80, "converting")
            await images.to_plain_qcow2(raw, header.format, plain)
            await asyncio.to_thread(_publish, plain, target)
            progressed(100, "in place")
        except programs.Failed as error:
            raise Refused(Reason.FAILED, f"the template {order.name} cannot be converted: {error}") from error
        except OSError as error:
            raise _storage_refusal(error) from error
        finally:
            await asyncio.to_thread(_unlink, raw, plain)

    async def _create(self, pool: PoolRef, target: Path, size_bytes: int, template: str) -> None:
        if not 0 <= size_bytes <= self._max_image_bytes:
            raise Refused(Reason.REJECTED, f"a volume of {size_bytes} bytes; {self._max_image_bytes} are allowed")
        backing = ""
        size = images.whole_sectors(size_bytes)
        if template:
            origin = self.template(pool, template)
            if not await _is_there(origin):
                raise Refused(Reason.MISSING, f"the template {template} is not in the pool")
            size = max(size, (await asyncio.to_thread(images.read_header, origin)).virtual_bytes)
            backing = f"../{TEMPLATES}/{origin.name}"
        elif size == 0:
            raise Refused(Reason.REJECTED, "a blank volume needs a size")
        part = self._temporary(target, "part")
        try:
            await images.create(part, size, backing)
            await asyncio.to_thread(_publish, part, target)
        except programs.Failed as error:
            raise Refused(Reason.FAILED, f"the volume {target.name} cannot be made: {error}") from error
        except OSError as error:
            raise _storage_refusal(error) from error
        finally:
            await asyncio.to_thread(_unlink, part)

    async def _mount(self, pool: PoolRef, directory: Path) -> None:
        if _is_mounted(directory):
            return
        if not _SERVER.fullmatch(pool.server) or not pool.path.startswith("/"):
            raise Refused(Reason.REJECTED, f"no NFS export: {pool.server!r}:{pool.path!r}")
        await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
        server = f"[{pool.server}]" if ":" in pool.server else pool.server
        try:
            await _or_refuse(
                ["mount", "-t", "nfs", "-o", "retry=0", f"{server}:{pool.path}", str(directory)],
                f"{pool.server}:{pool.path} cannot be mounted{_without_nfs()}",
            )
        except Refused:
            await asyncio.to_thread(_drop_directory, directory)
            raise

    def _prepare(self, directory: Path) -> PoolFacts:
        try:
            for part in (TEMPLATES, VOLUMES):
                (directory / part).mkdir(mode=0o711, parents=True, exist_ok=True)
            if directory not in self._swept:
                self._sweep(directory)
                self._swept.add(directory)
            room = os.statvfs(directory)
        except OSError as error:
            raise _storage_refusal(error) from error
        return PoolFacts(room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize)

    def _sweep(self, directory: Path) -> None:
        """Remove half files that an earlier run of this host left; those of other hosts may be in use."""
        for part in (TEMPLATES, VOLUMES):
            for path in (directory / part).glob(f".*.{self._host_uuid}.*"):
                path.unlink(missing_ok=True)

    def _temporary(self, target: Path, kind: str) -> Path:
        return target.with_name(f".{target.name}.{self._host_uuid}.{kind}")

    def _lock(self, path: Path) -> asyncio.Lock:
        return self._locks[hash(path) % LOCKS]


async def _is_there(path: Path) -> bool:
    """True when the file is there. Raises Refused (MISSING) when its pool is not attached."""
    if await asyncio.to_thread(path.exists):
        return True
    if not await asyncio.to_thread(path.parent.is_dir):
        raise Refused(Reason.MISSING, f"the pool with {path.parent} is not attached to this host")
    return False


def _unlink(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _drop_directory(directory: Path) -> None:
    if directory.is_dir():
        directory.rmdir()


def _publish(part: Path, target: Path) -> None:
    """Give a whole file its name. When another host was faster its file stays: both are the same image."""
    with part.open("rb") as file:
        # libvirt gives it to its emulator's user when a guest needs it; nobody else on the host has a use for it.
        os.fchmod(file.fileno(), 0o600)
        os.fsync(file.fileno())
    try:
        os.link(part, target)
    except FileExistsError:
        return


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Refused(Reason.REJECTED, f"no name for a file: {name!r}")
    return name


def _available(directory: Path) -> int:
    room = os.statvfs(directory)
    return room.f_bavail * room.f_frsize


def _storage_refusal(error: OSError) -> Refused:
    reason = Reason.NO_ROOM if error.errno in _FULL else Reason.FAILED
    return Refused(reason, f"the pool refuses: {error.strerror}")


def _is_mounted(directory: Path) -> bool:
    return any(line.split()[4] == str(directory) for line in Path("/proc/self/mountinfo").read_text().splitlines())


def _without_nfs() -> str:
    """A hint, when the kernel has no NFS client (yet: mounting may load it)."""
    kinds = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    return "" if kinds & {"nfs", "nfs4"} else " (the kernel of this host has no NFS client)"


async def _or_refuse(argv: list[str], what: str) -> None:
    try:
        await programs.run(argv, seconds=MOUNT_SECONDS)
    except programs.Failed as error:
        raise Refused(Reason.FAILED, f"{what}: {error}") from error
