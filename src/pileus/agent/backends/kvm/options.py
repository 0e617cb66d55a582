"""The options of a KVM host: what may stand in its part of the agent's configuration file."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DEVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_CACHES = frozenset({"none", "writeback", "writethrough", "directsync"})


@dataclass(frozen=True)
class KvmOptions:
    """Everything has a default that fits a host with one bridge to the outside.

    `guest_bridge` and `control_bridge` carry untagged guest and control traffic; empty means `public_bridge`.
    `vxlan_device` and `vlan_device` carry tagged networks; empty means the device that bears the host's address, and
    for VLANs the uplink in it when it is a bridge. `vlan_switch` is an Open vSwitch bridge that tags in place of the
    kernel; its trunk is the administrator's. `public_vlan_device` or `public_vlan_switch`, if given, does so for Direct
    networks and public addresses, where another card than that of virtual networks leads out. `cpus`, `cpu_mhz` and
    `memory_mib` say how much of the machine is offered; 0 means all of what is found.
    """

    libvirt_uri: str = "qemu:///system"
    public_bridge: str = "pub0"
    guest_bridge: str = ""
    control_bridge: str = ""
    vxlan_device: str = ""
    vlan_device: str = ""
    vlan_switch: str = ""
    public_vlan_device: str = ""
    public_vlan_switch: str = ""
    vxlan_port: int = 4789
    disk_cache: str = "none"
    max_image_gib: int = 2048
    cpus: int = 0
    cpu_mhz: int = 0
    memory_mib: int = 0


def parse(options: Mapping[str, Any]) -> KvmOptions:
    """Options from the configuration file. Raises ValueError for an unknown name or a bad value."""
    known = dataclasses.asdict(KvmOptions())
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"the kvm backend knows no option {', '.join(unknown)}")
    for name, value in options.items():
        wanted = type(known[name])
        if type(value) is not wanted:
            raise ValueError(f"the option {name} of the kvm backend is {wanted.__name__}, not {value!r}")
        if wanted is int and value < 0:
            raise ValueError(f"the option {name} of the kvm backend is at least 0, not {value}")
        if name.endswith(("_bridge", "_device", "_switch")) and value and not _DEVICE.fullmatch(value):
            raise ValueError(f"the option {name} of the kvm backend names no network device: {value!r}")
    parsed = KvmOptions(**options)
    if parsed.disk_cache not in _CACHES:
        raise ValueError(f"disk_cache is one of {', '.join(sorted(_CACHES))}, not {parsed.disk_cache!r}")
    for device, switch in (("vlan_device", "vlan_switch"), ("public_vlan_device", "public_vlan_switch")):
        if getattr(parsed, device) and getattr(parsed, switch):
            raise ValueError(f"VLANs leave the host by {device} or by {switch}, not by both")
    if not 0 < parsed.vxlan_port < 65536:
        raise ValueError(f"vxlan_port is a UDP port, not {parsed.vxlan_port}")
    return parsed
