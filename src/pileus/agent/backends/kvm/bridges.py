"""Networks of a host as Linux bridges: made on use, removed when the last port has gone.

A VXLAN network is a bridge `brvx<VNI>` with the device `vx<VNI>`, a VLAN a bridge `brvl<id>` with `vl<id>`: a device
of the kernel that tags, or a port of an Open vSwitch bridge that does. Guests must not reach the host itself over them:
such bridges carry no address, and what they deliver to the host is dropped.
"""

import asyncio
import contextlib
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import open_vswitch, programs
from pileus.agent.backends.kvm.domain_xml import Seat
from pileus.agent.backends.kvm.options import KvmOptions
from pileus.wire.operations import Reason
from pileus.wire.places import Isolation, NetworkRef, Traffic

VXLAN_OVERHEAD = 50
VLAN_OVERHEAD = 4
ETHERNET_MTU = 1500
MULTICAST_GROUPS = 16
"""VNIs share so many multicast groups: a socket may join no more than 20, and the VNI separates them anyway."""

_NET = Path("/sys/class/net")
_SYSCTL = Path("/proc/sys/net")
_GUARD = """
table inet pileus-guard
delete table inet pileus-guard
table inet pileus-guard {
    chain input {
        type filter hook input priority -300; policy accept;
        iifname "brvx*" drop
        iifname "brvl*" drop
    }
}
"""
"""Replaces itself in one transaction, whether it was there or not."""


@dataclass(frozen=True)
class Devices:
    """The host's devices that carry tagged networks."""

    vxlan: str
    vlan: str


class Bridges:
    """The bridges of one host. Calls may come at the same time; those for one network wait for each other."""

    def __init__(self, options: KvmOptions, address: str) -> None:
        self._options = options
        self._address = address
        self._locks: defaultdict[NetworkRef, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def guard(self) -> None:
        """Keep guests on tagged networks off the host's own addresses; forget ports of networks that a crash ended."""
        await programs.run(["nft", "-f", "-"], stdin=_GUARD)
        for switch in {self._options.vlan_switch, self._options.public_vlan_switch} - {""}:
            await open_vswitch.forget(switch, lambda port: not (_NET / port / "master").exists())

    def name_of(self, network: NetworkRef) -> str:
        """The bridge of a network. Raises Refused (REJECTED) for a tag out of range."""
        match network.isolation:
            case Isolation.VXLAN:
                _require_tag(network, 1, 2**24 - 1)
                return f"brvx{network.tag}"
            case Isolation.VLAN:
                _require_tag(network, 1, 4094)
                return f"brvl{network.tag}"
            case Isolation.UNTAGGED:
                return self._untagged(network.traffic)

    def seat(self, network: NetworkRef) -> Seat:
        """Where a NIC of this network is plugged; the network must be there."""
        bridge = self.name_of(network)
        mtu = mtu_of(bridge)
        return Seat(bridge, mtu if network.isolation is not Isolation.UNTAGGED and mtu < ETHERNET_MTU else 0)

    async def plug(self, network: NetworkRef) -> None:
        """Make sure the bridge of the network is there and up."""
        bridge = self.name_of(network)
        if network.isolation is Isolation.UNTAGGED:
            if not _exists(bridge):
                raise Refused(Reason.FAILED, f"this host has no bridge {bridge} for {network.traffic.value} traffic")
            return
        async with self._locks[network]:
            try:
                await self._make(network, bridge)
            except programs.Failed as error:
                with contextlib.suppress(programs.Failed):
                    await self._unmake(network, bridge)
                raise Refused(Reason.FAILED, f"the bridge {bridge} cannot be made: {error}") from error

    async def unplug(self, network: NetworkRef) -> None:
        """Remove the bridge of a tagged network when no guest or router is plugged into it."""
        if network.isolation is Isolation.UNTAGGED:
            return
        bridge = self.name_of(network)
        async with self._locks[network]:
            if _exists(bridge) and set(_ports(bridge)) - {_uplink(network)}:
                return
            try:
                await self._unmake(network, bridge)
            except programs.Failed as error:
                raise Refused(Reason.FAILED, f"the bridge {bridge} cannot be removed: {error}") from error

    async def _make(self, network: NetworkRef, bridge: str) -> None:
        uplink = _uplink(network)
        carrier = await self._carrier(network)
        overhead = VXLAN_OVERHEAD if network.isolation is Isolation.VXLAN else VLAN_OVERHEAD
        mtu = min(ETHERNET_MTU, mtu_of(carrier) - overhead)
        if not _exists(bridge):
            # Snooping needs a querier; without one it loses multicast between guests.
            kind = ["type", "bridge", "mcast_snooping", "0", "stp_state", "0", "forward_delay", "0"]
            await programs.run(["ip", "link", "add", bridge, "mtu", str(mtu), *kind])
            _close_to_host(bridge)
        if not _exists(uplink):
            if network.isolation is Isolation.VXLAN:
                await self._add_vxlan(network.tag, uplink, carrier, mtu)
            elif self._ways_out(network)[0]:
                await open_vswitch.add_port(carrier, uplink, tag=network.tag, mtu=mtu)
            else:
                await self._add_vlan(network.tag, uplink, carrier, mtu)
        await programs.run(["ip", "link", "set", uplink, "master", bridge, "up"])
        await programs.run(["ip", "link", "set", bridge, "up"])

    async def _unmake(self, network: NetworkRef, bridge: str) -> None:
        if network.isolation is Isolation.VLAN and (switch := self._ways_out(network)[0]):
            # The switch would make the device again.
            await open_vswitch.remove_port(switch, _uplink(network))
        for device in (_uplink(network), bridge):
            if _exists(device):
                await programs.attempt(["ip", "link", "del", device])

    async def _add_vxlan(self, vni: int, device: str, carrier: str, mtu: int) -> None:
        group = f"239.195.0.{vni % MULTICAST_GROUPS}"
        kind = ["type", "vxlan", "id", str(vni), "group", group, "dev", carrier, "local", self._address, "ttl", "8"]
        port = ["dstport", str(self._options.vxlan_port)]
        await programs.run(["ip", "link", "add", device, "mtu", str(mtu), *kind, *port])

    async def _add_vlan(self, tag: int, device: str, carrier: str, mtu: int) -> None:
        kind = ["type", "vlan", "id", str(tag)]
        ended = await programs.attempt(["ip", "link", "add", "link", carrier, "name", device, "mtu", str(mtu), *kind])
        if ended.status == 0:
            return
        if not _has_vlans():
            raise programs.Failed(
                f"the kernel has no 802.1Q (module 8021q), which VLAN {tag} needs: give the host an Open vSwitch bridge"
                " (option vlan_switch), or use VXLAN"
            )
        raise programs.Failed(f"VLAN {tag} on {carrier}: {ended.said}")

    async def _carrier(self, network: NetworkRef) -> str:
        """The device that tagged frames of this network leave the host by."""
        if network.isolation is Isolation.VXLAN and self._options.vxlan_device:
            return self._options.vxlan_device
        if network.isolation is Isolation.VLAN and (chosen := next(filter(None, self._ways_out(network)), "")):
            return chosen
        bearer = await device_of(self._address)
        if not bearer:
            raise programs.Failed(f"no device of this host has the address {self._address}")
        if network.isolation is Isolation.VLAN and (uplinks := physical_ports(bearer)):
            return uplinks[0]
        return bearer

    def _ways_out(self, network: NetworkRef) -> tuple[str, str]:
        """The switch that tags a VLAN, and the device that does; at most one is given."""
        options = self._options
        public = (options.public_vlan_switch, options.public_vlan_device)
        if network.traffic is Traffic.PUBLIC and any(public):
            return public
        return options.vlan_switch, options.vlan_device

    def _untagged(self, traffic: Traffic) -> str:
        options = self._options
        own = {Traffic.GUEST: options.guest_bridge, Traffic.CONTROL: options.control_bridge}
        return own.get(traffic) or options.public_bridge


async def device_of(address: str) -> str:
    """The device that has this IPv4 address; empty when none has."""
    listed = json.loads(await programs.run(["ip", "-j", "-4", "addr", "show"]))
    for device in listed:
        for found in device.get("addr_info", []):
            if found.get("local") == address:
                return str(device["ifname"])
    return ""


def physical_ports(device: str) -> list[str]:
    """The ports of a bridge that lead out of the host, hardware first choice. Empty when the device is no bridge."""
    ports = _ports(device)
    hardware = [port for port in ports if (_NET / port / "device").exists()]
    return hardware or [port for port in ports if port.startswith(("eth", "en", "bond"))]


def _has_vlans() -> bool:
    return Path("/proc/net/vlan").exists()


def _ports(bridge: str) -> list[str]:
    directory = _NET / bridge / "brif"
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


def _uplink(network: NetworkRef) -> str:
    return f"vx{network.tag}" if network.isolation is Isolation.VXLAN else f"vl{network.tag}"


def _exists(device: str) -> bool:
    return (_NET / device).exists()


def mtu_of(device: str) -> int:
    """The MTU of a device. Raises programs.Failed when there is none of this name."""
    try:
        return int((_NET / device / "mtu").read_text())
    except FileNotFoundError as error:
        raise programs.Failed(f"this host has no network device {device}") from error


def _close_to_host(bridge: str) -> None:
    """The host takes no address on this bridge, and routes nothing that comes from it."""
    for path, value in ((f"ipv6/conf/{bridge}/disable_ipv6", "1"), (f"ipv4/conf/{bridge}/forwarding", "0")):
        file = _SYSCTL / path
        # A kernel without IPv6 has no such file, and no such danger.
        if file.exists():
            file.write_text(value)


def _require_tag(network: NetworkRef, low: int, high: int) -> None:
    if not low <= network.tag <= high:
        raise Refused(Reason.REJECTED, f"{network.isolation.value} has no tag {network.tag}")
