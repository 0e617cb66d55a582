"""The libvirt domain of a guest: built from its spec, and read back. Pure; built as a tree, so every text is escaped.

Our part of the metadata carries the epoch and the networks: an agent that was started again knows its guests from it.
"""

import hashlib
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass

from pileus.wire.operations import VmSpec
from pileus.wire.places import DiskSpec, Isolation, NetworkRef, NicSpec, Traffic

NAMESPACE = "urn:pileus:domain:1"
QUOTA_PERIOD_MICROSECONDS = 100_000
SHARES_RANGE = (2, 262_144)
"""What the kernel takes for CPU shares."""
HOTPLUG_PORTS = 12
CD_DRIVE = "sdf"
"""On the last port of the controller that the machine has anyway."""
VNC_PASSWORD_CHARACTERS = 8
"""VNC authentication looks at no more."""

_INSTANCE = re.compile(r"[a-z]-(?:[0-9]+-)?([0-9]{1,9})-VM")

ET.register_namespace("pileus", NAMESPACE)


@dataclass(frozen=True)
class Seat:
    """Where a NIC is plugged on this host. `mtu` 0 means the ordinary one."""

    bridge: str
    mtu: int = 0


@dataclass(frozen=True)
class Surroundings:
    """What the host adds to a spec: paths, bridges, and how it can run guests.

    `cpu_mhz` is the speed of one core of the host, for the CPU limit.
    """

    accelerated: bool
    address: str
    cpu_mhz: int
    console_log: str
    disks: Mapping[DiskSpec, str]
    seats: Mapping[NetworkRef, Seat]
    iso: str = ""
    disk_cache: str = "none"


@dataclass(frozen=True)
class DomainMark:
    """What our part of a domain's metadata says."""

    epoch: int
    networks: tuple[NetworkRef, ...]


def build(vm: VmSpec, around: Surroundings) -> str:
    """The domain's XML."""
    root = ET.Element("domain", type="kvm" if around.accelerated else "qemu")
    _text(root, "name", vm.name)
    _text(root, "uuid", vm.uuid)
    root.append(_metadata(vm))
    _text(root, "memory", str(vm.ram_mib), unit="MiB")
    _text(root, "vcpu", str(vm.cpus))
    _cpu_time(root, vm, around)
    _firmware(root, vm, around)
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "destroy")):
        _text(root, f"on_{event}", action)
    devices = ET.SubElement(root, "devices")
    for disk in vm.disks:
        _disk(devices, disk, vm, around)
    _drive(devices, around)
    _ports(devices)
    for nic in vm.nics:
        _nic(devices, nic, vm, around)
    _console(devices, vm, around)
    return ET.tostring(root, encoding="unicode")


def shares(vm: VmSpec) -> int:
    """CPU shares of a guest: one per MHz it was sold, so that guests get CPU in proportion to their GHz."""
    low, high = SHARES_RANGE
    return min(max(vm.cpus * vm.cpu_mhz, low), high)


def quota_microseconds(vm: VmSpec, host_mhz: int) -> int:
    """CPU time per period of one virtual CPU of a limited guest, at least libvirt's minimum of 1 ms."""
    share = min(1.0, vm.cpu_mhz / max(1, host_mhz))
    return max(1000, round(share * QUOTA_PERIOD_MICROSECONDS))


def tap_name(vm_name: str, device_id: int) -> str:
    """The host's end of a NIC: at most 15 characters, and never "vnet…", which libvirt would rename."""
    match = _INSTANCE.fullmatch(vm_name)
    if match:
        return f"t{match[1]}n{device_id}"
    return f"t{hashlib.sha256(vm_name.encode()).hexdigest()[:9]}n{device_id}"


def mark_of(metadata: str) -> DomainMark:
    """Our metadata element, read. Raises ValueError when it is not ours."""
    root = ET.fromstring(metadata)  # noqa: S314 written by us and kept by libvirt
    if root.tag not in {"vm", f"{{{NAMESPACE}}}vm"}:
        raise ValueError(f"no metadata of ours: {root.tag}")
    networks = tuple(_network_of(child) for child in root if child.tag.rpartition("}")[2] == "network")
    return DomainMark(epoch=int(root.get("epoch", "")), networks=networks)


def _network_of(element: ET.Element) -> NetworkRef:
    traffic, isolation, tag = (element.get(name, "") for name in ("traffic", "isolation", "tag"))
    return NetworkRef(Traffic(traffic), Isolation(isolation), int(tag))


def console_port(xml: str) -> int:
    """The VNC port of a running domain; 0 when it has none."""
    graphics = ET.fromstring(xml).find("./devices/graphics[@type='vnc']")  # noqa: S314 from our own libvirt
    return max(0, int(graphics.get("port", "0"))) if graphics is not None else 0


def _metadata(vm: VmSpec) -> ET.Element:
    metadata = ET.Element("metadata")
    mark = ET.SubElement(metadata, f"{{{NAMESPACE}}}vm", epoch=str(vm.epoch))
    for network in dict.fromkeys(nic.network for nic in vm.nics):
        attributes = {"traffic": network.traffic.value, "isolation": network.isolation.value, "tag": str(network.tag)}
        ET.SubElement(mark, f"{{{NAMESPACE}}}network", attributes)
    return metadata


def _cpu_time(root: ET.Element, vm: VmSpec, around: Surroundings) -> None:
    tune = ET.SubElement(root, "cputune")
    _text(tune, "shares", str(shares(vm)))
    if vm.limit_cpu:
        _text(tune, "period", str(QUOTA_PERIOD_MICROSECONDS))
        _text(tune, "quota", str(quota_microseconds(vm, around.cpu_mhz)))


def _firmware(root: ET.Element, vm: VmSpec, around: Surroundings) -> None:
    system = ET.SubElement(root, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    for device in ("hd", "cdrom"):
        ET.SubElement(system, "boot", dev=device)
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if around.accelerated:
        cpu = ET.SubElement(root, "cpu", mode="host-model")
    else:
        cpu = ET.SubElement(root, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", "qemu64", fallback="allow")
    ET.SubElement(cpu, "topology", sockets="1", dies="1", cores=str(vm.cpus), threads="1")
    ET.SubElement(root, "clock", offset="localtime" if _windows(vm) else "utc")


def _disk(devices: ET.Element, disk: DiskSpec, vm: VmSpec, around: Surroundings) -> None:
    bus, letters = ("sata", "sd") if _windows(vm) else ("virtio", "vd")
    element = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(element, "driver", name="qemu", type="qcow2", cache=around.disk_cache, discard="unmap")
    ET.SubElement(element, "source", file=around.disks[disk])
    ET.SubElement(element, "target", dev=f"{letters}{_letter(disk.device_id, bus)}", bus=bus)
    _text(element, "serial", f"{vm.uuid.replace('-', '')[:16]}{disk.device_id:04d}")


def _letter(device_id: int, bus: str) -> str:
    """The letter of a disk; on SATA the CD drive has one of them."""
    skipped = bus == "sata" and device_id >= ord(CD_DRIVE[-1]) - ord("a")
    return chr(ord("a") + device_id + (1 if skipped else 0))


def _drive(devices: ET.Element, around: Surroundings) -> None:
    """A CD drive, always there, so that an ISO can be put in while the guest runs."""
    element = ET.SubElement(devices, "disk", type="file", device="cdrom")
    ET.SubElement(element, "driver", name="qemu", type="raw")
    if around.iso:
        ET.SubElement(element, "source", file=around.iso)
    ET.SubElement(element, "target", dev=CD_DRIVE, bus="sata")
    ET.SubElement(element, "readonly")


def _ports(devices: ET.Element) -> None:
    """Free slots, so that disks and NICs can be plugged while the guest runs: q35 has none by itself."""
    ET.SubElement(devices, "controller", type="pci", index="0", model="pcie-root")
    for index in range(1, HOTPLUG_PORTS + 1):
        ET.SubElement(devices, "controller", type="pci", index=str(index), model="pcie-root-port")


def _nic(devices: ET.Element, nic: NicSpec, vm: VmSpec, around: Surroundings) -> None:
    seat = around.seats[nic.network]
    element = ET.SubElement(devices, "interface", type="bridge")
    ET.SubElement(element, "mac", address=nic.mac)
    ET.SubElement(element, "source", bridge=seat.bridge)
    ET.SubElement(element, "target", dev=tap_name(vm.name, nic.device_id))
    ET.SubElement(element, "model", type="e1000e" if _windows(vm) else "virtio")
    if seat.mtu:
        ET.SubElement(element, "mtu", size=str(seat.mtu))
    # Nothing boots from the network here, and the boot ROM costs time.
    ET.SubElement(element, "rom", enabled="no")


def _console(devices: ET.Element, vm: VmSpec, around: Surroundings) -> None:
    serial = ET.SubElement(devices, "serial", type="pty")
    ET.SubElement(serial, "log", file=around.console_log, append="off")
    ET.SubElement(serial, "target", port="0")
    graphics = ET.SubElement(
        devices,
        "graphics",
        type="vnc",
        port="-1",
        autoport="yes",
        passwd=vm.vnc_password[:VNC_PASSWORD_CHARACTERS],
    )
    ET.SubElement(graphics, "listen", type="address", address=around.address)
    video = ET.SubElement(devices, "video")
    ET.SubElement(video, "model", type="vga")
    ET.SubElement(devices, "input", type="tablet", bus="usb")
    ET.SubElement(devices, "memballoon", model="none")
    source = ET.SubElement(devices, "rng", model="virtio")
    _text(source, "backend", "/dev/urandom", model="random")


def _windows(vm: VmSpec) -> bool:
    """True for guests that bring no virtio drivers and expect local time."""
    return vm.os_type.startswith("Windows")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
