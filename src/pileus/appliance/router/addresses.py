"""The router's own addresses, default route and kernel settings, brought to what the config says."""

import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from pileus.appliance.router.checks import source_of
from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.programs import run
from pileus.wire.router import PublicAddress, RouterConfig

SETTINGS = Path("/proc/sys/net")

_ARP_ANNOUNCEMENT = struct.Struct("!6s6sH HHBBH 6s4s6s4s")


class _Address(msgspec.Struct):
    local: str = ""
    prefixlen: int = 0


class _Link(msgspec.Struct):
    addr_info: list[_Address] = []


class _Route(msgspec.Struct):
    gateway: str = ""
    prefsrc: str = ""


@dataclass
class Addresses:
    """Part of the router that owns the interfaces `guest` and `public` ("" when there is none)."""

    guest: str
    public: str
    _in_place: tuple[object, ...] | None = None
    """What the interfaces are known to follow; None after a start, and after a failure."""

    async def apply(self, config: RouterConfig | None) -> None:
        """Have exactly the addresses of `config`, none when it is None; only differences are touched."""
        wanted = _followed(config)
        if wanted == self._in_place:
            return
        self._in_place = None
        await self._follow(config)
        self._in_place = wanted

    async def _follow(self, config: RouterConfig | None) -> None:
        self._set_kernel(forwarding=config is not None and "gateway" in config.services)
        await run("ip", "link", "set", "dev", "lo", "up")
        await self._bring(self.guest, {(config.guest_ip, config.guest_prefix)} if config else set())
        if self.public:
            public = config.public if config else ()
            await self._bring(self.public, {(one.ip, one.prefix) for one in public})
            await self._route(public, self.public)
        else:
            own = config and config.gateway and PublicAddress(config.guest_ip, config.guest_prefix, config.gateway)
            await self._route((own,) if own else (), self.guest)

    async def _bring(self, device: str, wanted: set[tuple[str, int]]) -> None:
        await run("ip", "link", "set", "dev", device, "up")
        links = msgspec.json.decode(await run("ip", "-j", "-4", "addr", "show", "dev", device), type=list[_Link])
        present = {(one.local, one.prefixlen) for link in links for one in link.addr_info if one.local}
        for ip, prefix in sorted(wanted - present):
            broadcast = ["broadcast", "+"] if prefix < 31 else []
            await run("ip", "addr", "add", f"{ip}/{prefix}", *broadcast, "dev", device)
            announce(device, ip)
        for ip, prefix in sorted(present - wanted):
            await run("ip", "addr", "del", f"{ip}/{prefix}", "dev", device)

    async def _route(self, public: Iterable[PublicAddress], device: str) -> None:
        """The default route, through the gateway of the source NAT address, or else of the first."""
        addresses = tuple(public)
        chosen = source_of(addresses) or next(iter(addresses), None)
        shown = msgspec.json.decode(await run("ip", "-j", "-4", "route", "show", "default"), type=list[_Route])
        if chosen is None:
            if shown:
                await run("ip", "route", "flush", "exact", "0.0.0.0/0")
            return
        if [(one.gateway, one.prefsrc) for one in shown] == [(chosen.gateway, chosen.ip)]:
            return
        # With a prefix of 32 the gateway is beyond every network of ours, and still on this wire.
        onlink = ["onlink"] if chosen.prefix == 32 else []
        way = ["via", chosen.gateway, "dev", device, *onlink, "src", chosen.ip]
        await run("ip", "route", "replace", "default", *way)

    def _set_kernel(self, *, forwarding: bool) -> None:
        devices = ["all", "default", self.guest, *([self.public] if self.public else [])]
        for device in devices:
            # Strict reverse path: nobody outside speaks as a guest, no guest as somebody outside.
            self._write(f"ipv4/conf/{device}/rp_filter", "1")
            self._write(f"ipv4/conf/{device}/accept_redirects", "0")
            self._write(f"ipv4/conf/{device}/send_redirects", "0")
            self._write(f"ipv4/conf/{device}/accept_source_route", "0")
            # Removing one address of a network must not take its neighbours along.
            self._write(f"ipv4/conf/{device}/promote_secondaries", "1")
        # All rules here are for IPv4: the other family stays off.
        for device in ("all", "default"):
            self._write(f"ipv6/conf/{device}/disable_ipv6", "1", must=False)
        self._write("ipv4/ip_forward", "1" if forwarding else "0")

    @staticmethod
    def _write(name: str, value: str, *, must: bool = True) -> None:
        path = SETTINGS / name
        try:
            if path.read_text().strip() != value:
                path.write_text(value)
        except FileNotFoundError:
            if must:
                raise StepFailed(f"kernel setting {name} is not there") from None
        except OSError as error:
            raise StepFailed(f"kernel setting {name}: {error.strerror}") from error


def _followed(config: RouterConfig | None) -> tuple[object, ...]:
    """Everything of a config that has to do with interfaces."""
    if config is None:
        return ()
    return config.guest_ip, config.guest_prefix, config.gateway, config.public, "gateway" in config.services


def announce(device: str, ip: str) -> None:
    """Tell everyone on the wire who has `ip` now (gratuitous ARP, RFC 5227 section 2.3)."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as wire:
        try:
            wire.bind((device, 0x0806))
            mac: bytes = wire.getsockname()[4]
            address = IPv4Address(ip).packed
            everyone = b"\xff" * 6
            head = (everyone, mac, 0x0806, 1, 0x0800, 6, 4, 1)
            wire.send(_ARP_ANNOUNCEMENT.pack(*head, mac, address, b"\0" * 6, address))
        except OSError as error:
            raise StepFailed(f"announcing {ip} on {device}: {error.strerror}") from error
