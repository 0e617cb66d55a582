"""Simulated secondary storage: an `ImageStore` that keeps names and sizes in memory and fetches nothing."""

import hashlib

from pileus.agent.backend import Progressed, Refused
from pileus.agent.backends.simulator.faults import Faults, When
from pileus.agent.backends.simulator.world import Image
from pileus.wire.messages import HostFacts, HostStats
from pileus.wire.operations import DownloadTemplate, ImageFacts, ImageFormat, Reason


class SimulatedStore:
    """Images by name. `sizes` says how big the image behind a URL is; unknown URLs serve `default_bytes`."""

    def __init__(self, host_uuid: str, *, capacity_bytes: int, faults: Faults | None = None) -> None:
        self.images: dict[str, Image] = {}
        self.sizes: dict[str, int] = {}
        self.default_bytes = 64 << 20
        self._uuid = host_uuid
        self._capacity_bytes = capacity_bytes
        self._faults = faults or Faults()

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def renewed(self) -> None:
        return None

    async def facts(self) -> HostFacts:
        return HostFacts("None", "1", "127.0.0.1", cpus=1, cpu_mhz=1000, memory_bytes=1 << 30, capabilities="")

    async def stats(self, host_uuid: str) -> HostStats:
        return HostStats(host_uuid, 0.0, 0, 0.0, 0, 0)

    async def download(self, order: DownloadTemplate, progressed: Progressed) -> ImageFacts:
        self._faults.strike(self._uuid, "download", order.name, When.BEFORE)
        if order.name not in self.images:
            size = self.sizes.get(order.url, self.default_bytes)
            used = sum(image.physical_bytes for image in self.images.values())
            if order.format not in (ImageFormat.QCOW2, ImageFormat.RAW):
                raise Refused(Reason.REJECTED, f"format {order.format} is not accepted")
            if size > order.max_bytes:
                raise Refused(Reason.REJECTED, f"{size} bytes, more than {order.max_bytes}")
            if used + size > self._capacity_bytes:
                raise Refused(Reason.NO_ROOM, f"{size} bytes wanted, {self._capacity_bytes - used} available")
            progressed(50, "half of it")
            sha256 = hashlib.sha256(order.url.encode()).hexdigest()
            self.images[order.name] = Image(size, size, sha256=sha256)
        image = self.images[order.name]
        progressed(100, "")
        self._faults.strike(self._uuid, "download", order.name, When.AFTER)
        url = f"https://127.0.0.1/images/{order.name}"
        return ImageFacts(image.virtual_bytes, image.physical_bytes, image.sha256, url)

    async def delete(self, name: str) -> None:
        self._faults.strike(self._uuid, "delete", name, When.BEFORE)
        self.images.pop(name, None)
        self._faults.strike(self._uuid, "delete", name, When.AFTER)
