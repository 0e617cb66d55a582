"""Secondary storage on a directory: downloads images from the world, inspects them, serves them to the zone's hosts.

Everything that leaves here is QCOW2: a raw image is converted once, told to be raw, so that nobody ever has to guess
what a file is by looking into it.
"""

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import structlog

from pileus import __version__
from pileus.appliance.storage import addresses, fetching, inspection, machine
from pileus.appliance.storage.decompression import stream_for
from pileus.appliance.storage.directory import Directory, Writer
from pileus.appliance.storage.options import StoreOptions
from pileus.appliance.storage.serving import NAME, PREFIX, ImageServer, server_context
from pileus.wire.messages import HostFacts, HostStats
from pileus.wire.operations import DownloadTemplate, ImageFacts, ImageFormat, Reason, Refused

log = structlog.get_logger(__name__)

Progressed = Callable[[int, str], None]

DOWNLOAD_PERCENT = 95
"""Where the progress stands when everything has arrived; the rest is inspection."""


class Credentials(Protocol):
    """Files (PEM) with which this host proves itself."""

    @property
    def certificate(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def ca(self) -> str: ...


class Settings(Protocol):
    """What the agent gives a store."""

    @property
    def host_uuid(self) -> str: ...

    @property
    def state_dir(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def credentials(self) -> Credentials: ...

    @property
    def options(self) -> Mapping[str, Any]: ...


class DirectoryStore:
    """One secondary storage host."""

    def __init__(self, settings: Settings, options: StoreOptions) -> None:
        self._settings = settings
        self._options = options
        self._directory = Directory(Path(options.path or settings.state_dir))
        self._server: ImageServer | None = None
        self._context: ssl.SSLContext | None = None
        self._port = options.port
        self._locks: dict[str, asyncio.Lock] = {}

    async def open(self) -> None:
        """Throw away half downloads and start serving."""
        await asyncio.to_thread(self._directory.open)
        credentials = self._settings.credentials
        self._context = server_context(credentials.certificate, credentials.key, credentials.ca)
        self._server = ImageServer(self._directory.images, self._context)
        self._port = await self._server.open(self._options.listen or self._settings.address, self._options.port)
        log.info("images.served", address=self._options.listen or self._settings.address, port=self._port)

    async def close(self) -> None:
        """Stop serving."""
        if self._server is not None:
            await self._server.close()
            self._server = None

    async def renewed(self) -> None:
        """Show the new certificate to whoever connects from now on; downloads that are under way go on."""
        if self._context is not None:
            self._context.load_cert_chain(self._settings.credentials.certificate, self._settings.credentials.key)

    async def facts(self) -> HostFacts:
        """This machine, as far as it matters for storage."""
        return HostFacts(
            hypervisor="None",
            version=__version__,
            address=self._settings.address,
            cpus=os.cpu_count() or 1,
            cpu_mhz=machine.cpu_mhz(),
            memory_bytes=machine.memory_bytes(),
            capabilities="",
        )

    async def stats(self, host_uuid: str) -> HostStats:
        """Load of this machine, and the space that images lie in."""
        load = os.getloadavg()[0]
        used = machine.memory_bytes() - machine.available_bytes()
        total, taken = await asyncio.to_thread(self._directory.space_bytes)
        return HostStats(
            host_uuid,
            min(1.0, load / (os.cpu_count() or 1)),
            used,
            load,
            0,
            0,
            storage_total_bytes=total,
            storage_used_bytes=taken,
        )

    async def download(self, order: DownloadTemplate, progressed: Progressed) -> ImageFacts:
        """Have the image. Raises Refused; then nothing of it is left here."""
        _require_acceptable(order)
        async with self._locks.setdefault(order.name, asyncio.Lock()):
            known = await asyncio.to_thread(self._directory.facts, order.name)
            if known is None:
                known = await self._download(order, progressed)
        progressed(100, "")
        return ImageFacts(known.virtual_bytes, known.physical_bytes, known.sha256, self.url_of(order.name))

    async def delete(self, name: str) -> None:
        """Have no image `name`."""
        if not NAME.fullmatch(name):
            raise Refused(Reason.REJECTED, "the name is not one of ours")
        async with self._locks.setdefault(name, asyncio.Lock()):
            await asyncio.to_thread(self._directory.delete, name)
        self._locks.pop(name, None)

    async def _download(self, order: DownloadTemplate, progressed: Progressed) -> ImageFacts:
        arrived = self._directory.partial(f"{order.name}.download")
        try:
            await self._arrive(order, arrived, progressed)
            if order.format is ImageFormat.QCOW2:
                finished = arrived
            else:
                progressed(DOWNLOAD_PERCENT, "converting")
                finished = self._directory.partial(f"{order.name}.qcow2")
                await inspection.raw_to_qcow2(arrived, finished)
            progressed(DOWNLOAD_PERCENT, "inspecting")
            virtual = await inspection.require_qcow2(finished, max_bytes=order.max_bytes)
            return await asyncio.to_thread(self._directory.keep, finished, order.name, virtual)
        finally:
            await asyncio.to_thread(self._directory.discard, order.name)

    async def _arrive(self, order: DownloadTemplate, target: Path, progressed: Progressed) -> None:
        """Run the blocking fetch in a thread; when this task is cancelled, the fetch is cut and waited for."""
        loop = asyncio.get_running_loop()
        cut = fetching.Cut()

        def tell(percent: int, text: str) -> None:
            loop.call_soon_threadsafe(progressed, percent, text)

        fetch = asyncio.ensure_future(asyncio.to_thread(self._fetch, order, target, cut, tell))
        try:
            await asyncio.shield(fetch)
        except asyncio.CancelledError:
            cut.now()
            with contextlib.suppress(Exception):
                await fetch
            raise

    def _fetch(self, order: DownloadTemplate, target: Path, cut: fetching.Cut, tell: Progressed) -> None:
        allowed = addresses.networks(order.allowed_cidrs)
        stream = stream_for(order.url)
        digest = _digest(order.checksum)
        limit = order.max_bytes
        writer = Writer(target)
        try:
            with fetching.fetched(
                order.url, allowed=allowed, patience=self._options.patience, cut=cut, tls=self._tls()
            ) as source:
                total = source.total_bytes
                _require_size(total or 0, limit)
                _require_room(total or 0, self._directory.free_bytes())
                received, shown = 0, -1
                for chunk in source.chunks():
                    received += len(chunk)
                    _require_size(received, limit)
                    digest.update(chunk)
                    for piece in stream.feed(chunk):
                        if writer.size == 0:
                            _require_magic(order.format, piece)
                        _require_size(writer.size + len(piece), limit)
                        writer.write(piece)
                    percent = received * DOWNLOAD_PERCENT // total if total else 0
                    if percent != shown:
                        tell(percent, "downloading")
                        shown = percent
                stream.finish()
        finally:
            writer.close()
        if writer.size == 0:
            raise Refused(Reason.REJECTED, "the URL serves an empty file")
        if order.checksum and digest.hexdigest() != order.checksum.lower():
            raise Refused(
                Reason.REJECTED, f"the URL serves a file with checksum {digest.hexdigest()}, not {order.checksum}"
            )

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._options.source_ca:
            context.load_verify_locations(cafile=self._options.source_ca)
        return context

    def url_of(self, name: str) -> str:
        """Where hosts fetch the image `name` from, while the store is open."""
        address = self._settings.address
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}:{self._port}{PREFIX}{name}"


def _require_acceptable(order: DownloadTemplate) -> None:
    if not NAME.fullmatch(order.name):
        raise Refused(Reason.REJECTED, "the name is not one of ours")
    if order.format not in (ImageFormat.QCOW2, ImageFormat.RAW):
        raise Refused(Reason.REJECTED, f"images of format {order.format} are not accepted")
    fetching.parsed(order.url)
    _digest(order.checksum)


def _digest(checksum: str) -> "hashlib._Hash":
    """The hash that a checksum of this length is made with."""
    if len(checksum) == 32:
        return hashlib.md5(usedforsecurity=False)
    if len(checksum) in (0, 64):
        return hashlib.sha256()
    raise Refused(Reason.REJECTED, "a checksum is an MD5 or SHA-256 digest in hexadecimal")


def _require_size(size_bytes: int, limit_bytes: int) -> None:
    if size_bytes > limit_bytes:
        raise Refused(Reason.REJECTED, f"the image is bigger than {limit_bytes} bytes, which is the most allowed")


def _require_room(size_bytes: int, free_bytes: int) -> None:
    if size_bytes > free_bytes:
        raise Refused(Reason.NO_ROOM, f"the image needs {size_bytes} bytes, and secondary storage has {free_bytes}")


def _require_magic(image_format: ImageFormat, beginning: bytes) -> None:
    """Say at once what a whole download would only show at its end. Too short a piece is left to the inspection."""
    if len(beginning) < 4:
        return
    looks = beginning.startswith(inspection.QCOW2_MAGIC)
    if image_format is ImageFormat.QCOW2 and not looks:
        raise Refused(Reason.REJECTED, "the URL serves no QCOW2 image")
    if image_format is ImageFormat.RAW and looks:
        raise Refused(Reason.REJECTED, "the URL serves a QCOW2 image, registered as RAW")
