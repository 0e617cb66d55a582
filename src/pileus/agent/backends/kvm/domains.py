"""Guests as persistent libvirt domains, and what happens to them unasked.

An event only says that something happened; what is so now is asked of libvirt, because an event of a former life may
come when the next one runs already. A life that we take down ourselves is forgotten first, so its end is no news.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import libvirt

from pileus.agent.backend import Noticed, Refused
from pileus.agent.backends.kvm.connection import Libvirt
from pileus.agent.backends.kvm.domain_xml import NAMESPACE, DomainMark, console_port, mark_of
from pileus.wire.messages import VmChange, VmSeen
from pileus.wire.operations import Reason, VmSpec
from pileus.wire.places import NetworkRef

ASK_AGAIN_SECONDS = 3.0
"""A guest that is still booting does not hear the power button: it is pressed again after so long."""
SETTLING_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)

_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)
_BAD_ENDS = frozenset({libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, libvirt.VIR_DOMAIN_SHUTOFF_FAILED})
_ALREADY = frozenset({libvirt.VIR_ERR_OPERATION_INVALID, libvirt.VIR_ERR_NO_DOMAIN})


@dataclass(frozen=True)
class Found:
    """A domain as libvirt holds it now. `mark` is None when it is not one of ours."""

    domain: Any
    name: str
    uuid: str
    running: bool
    mark: DomainMark | None
    crashed: bool = False


@dataclass
class _Life:
    """A guest we watch. `leaving` while it was asked to stop; `changed` is set at every event."""

    name: str
    uuid: str
    epoch: int
    running: bool
    leaving: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Domains:
    """The guests of one libvirtd."""

    def __init__(self, uri: str) -> None:
        self._libvirt = Libvirt(uri, lifecycle=self._happened, back=self._catch_up)
        self._noticed: Noticed | None = None
        self._lives: dict[str, _Life] = {}
        self._checks: set[asyncio.Task[None]] = set()

    async def open(self, noticed: Noticed) -> None:
        """Connect, and watch every guest of ours that is there."""
        await self._libvirt.open()
        self._lives = {
            found.uuid: _Life(found.name, found.uuid, found.mark.epoch, found.running)
            for found in await self._libvirt.call(_all)
            if found.mark is not None
        }
        self._noticed = noticed

    async def close(self) -> None:
        self._noticed = None
        for check in list(self._checks):
            check.cancel()
        await asyncio.gather(*self._checks, return_exceptions=True)
        await self._libvirt.close()
        self._lives.clear()

    @property
    def call(self) -> Callable[[Callable[[Any], Any]], Any]:
        """A call of libvirt for facts and statistics."""
        return self._libvirt.call

    def watched(self) -> dict[str, str]:
        """UUID → name of the guests of ours."""
        return {life.uuid: life.name for life in self._lives.values()}

    async def inventory(self) -> list[VmSeen]:
        """Every guest of ours, off ones included; domains of others are not our business."""
        return [_seen(found, found.mark) for found in await self._libvirt.call(_all) if found.mark is not None]

    async def seen(self, name: str) -> VmSeen | None:
        found = await self._find(name)
        return _seen(found, found.mark) if found is not None and found.mark is not None else None

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        """The networks the guest was defined with; empty when it is not there."""
        found = await self._find(name)
        return found.mark.networks if found is not None and found.mark is not None else ()

    async def running_in(self, vm: VmSpec) -> bool:
        """True when this very life runs. Raises Refused when the name or the UUID is taken, or a newer life is here."""
        found = await self._find(vm.name)
        if found is None:
            return False
        if found.mark is None:
            raise Refused(Reason.FAILED, f"a domain {vm.name} is here that is not ours")
        if found.uuid != vm.uuid:
            raise Refused(Reason.FAILED, f"the name {vm.name} belongs to {found.uuid} here")
        if found.mark.epoch > vm.epoch:
            raise Refused(Reason.STALE_EPOCH, f"epoch {found.mark.epoch} of {vm.name} is here")
        return found.running and found.mark.epoch == vm.epoch

    async def start(self, vm: VmSpec, xml: str) -> None:
        """Define and start a guest that is not there. Nothing is left when it does not start."""
        await self._libvirt.call(lambda connection: _define_and_start(connection, xml))
        self._lives[vm.uuid] = _Life(vm.name, vm.uuid, vm.epoch, running=True)
        # It may have died before it was watched.
        self._check_soon(self._lives[vm.uuid])

    async def console(self, name: str) -> int:
        """The VNC port of a running guest. Raises Refused when it does not run any more."""

        def read(connection: Any) -> int:
            return console_port(connection.lookupByName(name).XMLDesc(0))

        port: int = await self._libvirt.call(read)
        if port == 0:
            raise Refused(Reason.FAILED, f"{name} ended right after its start")
        return port

    async def shut_down(self, name: str, grace_seconds: float) -> bool:
        """Press the power button and wait; True when the guest is off (or not there)."""
        found = await self._find(name)
        if found is None or found.mark is None or not found.running:
            return True
        life = self._lives.setdefault(found.uuid, _Life(name, found.uuid, found.mark.epoch, running=True))
        life.leaving = True
        off = await self._wait_off(life, grace_seconds)
        # A guest that goes later, after we stopped waiting, goes by itself.
        life.leaving = off
        return off

    async def remove(self, name: str) -> None:
        """Pull the power and undefine. A domain that is not ours is left alone."""
        found = await self._find(name)
        if found is None or found.mark is None:
            return
        self._lives.pop(found.uuid, None)
        await self._libvirt.call(lambda connection: _remove(found.domain))

    async def _wait_off(self, life: _Life, grace_seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        while True:
            life.changed.clear()
            if await self._libvirt.call(lambda connection: _press_power_button(connection, life.uuid)):
                return True
            left = deadline - loop.time()
            if left <= 0:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, ASK_AGAIN_SECONDS)):
                    await life.changed.wait()

    async def _find(self, name: str) -> Found | None:
        found: Found | None = await self._libvirt.call(lambda connection: _by_name(connection, name))
        return found

    # ---- what happens unasked

    def _happened(self, uuid: str, event: int) -> None:
        life = self._lives.get(uuid)
        if life is None:
            return
        if event == libvirt.VIR_DOMAIN_EVENT_ID_REBOOT:
            self._tell(life, VmChange.REBOOTED)
            return
        life.changed.set()
        self._check_soon(life)

    async def _catch_up(self) -> None:
        """After a lost connection: events may have been lost with it.

        A new daemon takes connections before it has looked for its guests, and sends no event for those it does not
        find: so it is asked more than once.
        """
        for pause in SETTLING_SECONDS:
            await asyncio.sleep(pause)
            for life in list(self._lives.values()):
                life.changed.set()
                await self._check(life)

    def _check_soon(self, life: _Life) -> None:
        task = asyncio.get_running_loop().create_task(self._check(life))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    async def _check(self, life: _Life) -> None:
        """Compare what we think of a life with what is, and tell the difference once."""
        with contextlib.suppress(Refused):
            found: Found | None = await self._libvirt.call(lambda connection: _by_uuid(connection, life.uuid))
            if self._lives.get(life.uuid) is not life:
                return
            running = found is not None and found.running
            if running == life.running:
                return
            life.running = running
            if running:
                self._tell(life, VmChange.STARTED)
            elif not life.leaving:
                crashed = found is not None and found.crashed
                self._tell(life, VmChange.CRASHED if crashed else VmChange.STOPPED)

    def _tell(self, life: _Life, change: VmChange) -> None:
        if self._noticed is not None:
            self._noticed(life.name, life.uuid, life.epoch, change)


# ---- in libvirt's threads


def _all(connection: Any) -> list[Found]:
    return [found for domain in connection.listAllDomains() if (found := _look(domain)) is not None]


def _by_name(connection: Any, name: str) -> Found | None:
    try:
        return _look(connection.lookupByName(name))
    except libvirt.libvirtError as error:
        _require_gone(error)
        return None


def _by_uuid(connection: Any, uuid: str) -> Found | None:
    try:
        return _look(connection.lookupByUUIDString(uuid))
    except libvirt.libvirtError as error:
        _require_gone(error)
        return None


def _look(domain: Any) -> Found | None:
    try:
        running = bool(domain.isActive())
        state, reason = domain.state()
        crashed = not running and (state == libvirt.VIR_DOMAIN_CRASHED or reason in _BAD_ENDS)
        return Found(domain, domain.name(), domain.UUIDString(), running, _mark(domain), crashed)
    except libvirt.libvirtError as error:
        _require_gone(error)
        return None


def _require_gone(error: Any) -> None:
    if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
        raise error


def _mark(domain: Any) -> DomainMark | None:
    try:
        return mark_of(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            return None
        raise


def _define_and_start(connection: Any, xml: str) -> None:
    domain = connection.defineXMLFlags(xml, libvirt.VIR_DOMAIN_DEFINE_VALIDATE)
    try:
        domain.create()
    except libvirt.libvirtError:
        _remove(domain)
        raise


def _press_power_button(connection: Any, uuid: str) -> bool:
    """True when the guest is off already."""
    try:
        domain = connection.lookupByUUIDString(uuid)
        if not domain.isActive():
            return True
        domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
    except libvirt.libvirtError as error:
        if error.get_error_code() not in _ALREADY:
            raise
        # It went between the two calls, or hears no ACPI yet; the next look tells.
        return bool(error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN)
    return False


def _remove(domain: Any) -> None:
    for step in (domain.destroy, lambda: domain.undefineFlags(_UNDEFINE)):
        try:
            step()
        except libvirt.libvirtError as error:
            if error.get_error_code() not in _ALREADY:
                raise


def _seen(found: Found, mark: DomainMark) -> VmSeen:
    return VmSeen(name=found.name, uuid=found.uuid, epoch=mark.epoch, running=found.running)
