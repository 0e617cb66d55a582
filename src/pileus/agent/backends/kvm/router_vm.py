"""Runs virtual routers in virtual machines of the host, booted from the zone's system template.

A router is a libvirt domain, a disk over the template's, and a directory for both. The directory is written before
anything is made and removed after everything is gone, so whatever crash came between, the router is listed, can be
started again, and can be removed. It outlives the agent, and libvirtd.
"""

import asyncio
import contextlib
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import images, programs, rates, router_control, router_domain, router_xml
from pileus.agent.backends.kvm.bridges import ETHERNET_MTU, mtu_of
from pileus.agent.backends.kvm.domain_xml import Seat, tap_name
from pileus.agent.backends.kvm.router_image import RouterImages
from pileus.agent.backends.kvm.router_lives import Life, Lives, check, checked, refusing
from pileus.wire.messages import VmSeen
from pileus.wire.operations import Reason, RouterFacts, RouterSpec
from pileus.wire.places import NetworkRef
from pileus.wire.router import RouterConfig

START_SECONDS = 240.0
"""For a boot on a host that is busy with others."""
LOOK_SECONDS = 5.0
"""How often it is looked whether a router that boots still runs."""

Call = Callable[[Callable[[Any], Any]], Any]
"""Runs a function of a libvirt connection (`connection.Libvirt.call`)."""

log = structlog.get_logger()


class VmRouters:
    """Routers of one host, kept in `state`, a directory of ours alone. A `RouterLauncher`."""

    def __init__(
        self, state: Path, *, call: Call, images: RouterImages, accelerated: Callable[[], bool], disk_cache: str
    ) -> None:
        self._lives = Lives(state)
        self._call = call
        self._images = images
        self._accelerated = accelerated
        self._disk_cache = disk_cache
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def start(self, router: RouterSpec, config: RouterConfig, bridges: tuple[str, ...]) -> RouterFacts:
        """As `RouterLauncher.start`. A start that is refused leaves nothing that was not there before."""
        check(router, bridges)
        async with self._locks[router.name], refusing("start"):
            known = self._lives.known(router)
            if not known:
                await self._remove(router.name)
            try:
                return await self._bring(Life(router, bridges), config)
            except BaseException:
                if not known:
                    # Cancelled or failed: what we made goes before anyone can see half a router.
                    await asyncio.shield(self._remove(router.name))
                raise

    async def configure(self, name: str, config: RouterConfig) -> RouterFacts:
        """As `RouterLauncher.configure`; a machine that is off or hangs is started again first."""
        async with self._locks[checked(name)], refusing("configure"):
            life = self._lives.of(name)
            if life is None or await self._look(name) is None:
                raise Refused(Reason.MISSING, f"router {name} is not here")
            return await router_control.configure(await self._bring_machine(life), config)

    async def remove(self, name: str) -> None:
        """As `RouterLauncher.remove`."""
        async with self._locks[checked(name)], refusing("remove"):
            await self._remove(name)

    async def seen(self) -> list[VmSeen]:
        """As `RouterLauncher.seen`."""
        lives = self._lives.every()
        running = await asyncio.gather(*(self._runs(life.router.name) for life in lives))
        return [
            VmSeen(name=life.router.name, uuid=life.router.uuid, epoch=life.router.epoch, running=runs, router=True)
            for life, runs in zip(lives, running, strict=True)
        ]

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        """As `RouterLauncher.networks_of`."""
        life = self._lives.of(name)
        return tuple(nic.network for nic in life.router.nics) if life else ()

    async def revive(self) -> None:
        """Power on every machine that is off: it applies its last config by itself. Boots are not waited for."""
        for life in self._lives.every():
            name = life.router.name
            async with self._locks[name]:
                try:
                    found = await self._look(name)
                    if found is not None and found.ours and not found.running:
                        await self._power_on(life)
                except (Refused, programs.Failed, OSError) as error:
                    log.error("router cannot be revived", router=name, error=str(error))

    async def _runs(self, name: str) -> bool:
        found = await self._look(name)
        return found is not None and await router_control.answers(_end(found))

    async def _bring(self, life: Life, config: RouterConfig) -> RouterFacts:
        """Make whatever of the router is not there, and apply the config."""
        self._lives.keep(life)
        return await router_control.configure(await self._bring_machine(life), config)

    async def _bring_machine(self, life: Life) -> router_control.Port:
        """Have the machine running and answering; its end of the channel."""
        name = life.router.name
        found = await self._look(name)
        if found is not None and not found.ours:
            raise Refused(Reason.FAILED, f"a domain {name} is here that is not ours")
        if found is not None and found.running:
            if await router_control.answers(_end(found)):
                return _end(found)
            # It may be booting still, or have lost its mind: nobody can tell from outside.
            await self._call(lambda connection: router_domain.power_off(connection, name))
        await self._bring_disk_and_domain(life)
        await self._power_on(life)
        return await self._booted(life)

    async def _bring_disk_and_domain(self, life: Life) -> None:
        router = life.router
        if router.machine is None:
            raise Refused(Reason.REJECTED, f"router {router.name} is to be no virtual machine")
        seats = tuple(_seat(bridge) for bridge in life.bridges)
        others = {life.router.machine.sha256 for life in self._lives.every() if life.router.machine is not None}
        await self._images.keep_only(others | {router.machine.sha256})
        image = await self._images.ready(router.machine)
        disk = self._lives.place(router.name) / "disk.qcow2"
        if not disk.exists():
            part = disk.with_name("disk.part")
            header = await asyncio.to_thread(images.read_header, image.disk)
            await images.create(part, header.virtual_bytes, str(image.disk))
            part.replace(disk)
        xml = router_xml.build(
            router,
            router_xml.Around(
                accelerated=self._accelerated(),
                image=image,
                disk=str(disk),
                console_log=str(self._lives.place(router.name) / "log"),
                seats=seats,
                disk_cache=self._disk_cache,
            ),
        )
        await self._call(lambda connection: router_domain.define(connection, xml))

    async def _power_on(self, life: Life) -> None:
        name = life.router.name
        await self._call(lambda connection: router_domain.start(connection, name))
        for index, nic in enumerate(life.router.nics):
            if nic.rate_mbps:
                await rates.limit_tap(tap_name(name, index), nic.rate_mbps)

    async def _booted(self, life: Life) -> router_control.Port:
        """Wait until the router answers. Raises Refused with the end of its log when it does not."""
        name = life.router.name
        deadline = time.monotonic() + START_SECONDS
        while True:
            found = await self._look(name)
            if found is None or not found.running or time.monotonic() > deadline:
                raise Refused(Reason.FAILED, f"router {name} does not come up: {self._last_words(name)}")
            if await router_control.answers(_end(found), seconds=LOOK_SECONDS):
                return _end(found)

    async def _look(self, name: str) -> router_domain.Found | None:
        found: router_domain.Found | None = await self._call(lambda connection: router_domain.look(connection, name))
        return found

    def _last_words(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            lines = (self._lives.place(name) / "log").read_text(errors="replace").strip().splitlines()
            return lines[-1].strip() if lines else "it said nothing"
        return "it has no log"

    async def _remove(self, name: str) -> None:
        await self._call(lambda connection: router_domain.remove(connection, name))
        await rates.clear(name)
        place = self._lives.place(name)
        if place.exists():
            # The record goes last: as long as there is anything, the router is listed.
            for file in ("disk.part", "disk.qcow2", "log", "life.json.new", "life.json"):
                (place / file).unlink(missing_ok=True)
            await asyncio.to_thread(shutil.rmtree, place)


def _end(found: router_domain.Found) -> router_control.Port:
    return router_control.Port(Path(found.channel))


def _seat(bridge: str) -> Seat:
    mtu = mtu_of(bridge)
    return Seat(bridge, mtu if mtu < ETHERNET_MTU else 0)
