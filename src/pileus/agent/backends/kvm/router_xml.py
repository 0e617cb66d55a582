"""The libvirt domain of a router that is a virtual machine. Pure; built as a tree, so every text is escaped.

Its mark in the metadata is not that of guests, so nobody takes it for one.
"""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

from pileus.agent.backends.kvm.domain_xml import QUOTA_PERIOD_MICROSECONDS, Seat, tap_name
from pileus.agent.backends.kvm.router_image import SystemImage
from pileus.wire.appliance import CONTROL_PORT
from pileus.wire.operations import RouterSpec

NAMESPACE = "urn:pileus:router:1"
SHARES_RANGE = (2, 262_144)
GUEST, PUBLIC = "guest", "public"

ET.register_namespace("pileusrouter", NAMESPACE)


@dataclass(frozen=True)
class Around:
    """What the host adds: the router's own `disk` over the template's, a log, a bridge for each NIC."""

    accelerated: bool
    image: SystemImage
    disk: str
    console_log: str
    seats: tuple[Seat, ...]
    disk_cache: str


def build(router: RouterSpec, around: Around) -> str:
    """The domain's XML."""
    root = ET.Element("domain", type="kvm" if around.accelerated else "qemu")
    _text(root, "name", router.name)
    _text(root, "uuid", router.uuid)
    ET.SubElement(ET.SubElement(root, "metadata"), f"{{{NAMESPACE}}}router", epoch=str(router.epoch))
    _text(root, "memory", str(router.ram_mib), unit="MiB")
    _text(root, "vcpu", str(router.cpus))
    low, high = SHARES_RANGE
    tune = ET.SubElement(root, "cputune")
    _text(tune, "shares", str(min(max(router.cpus * router.cpu_mhz, low), high)))
    _text(tune, "period", str(QUOTA_PERIOD_MICROSECONDS))
    _told(root, router)
    _firmware(root, around)
    for event, action in (("poweroff", "destroy"), ("reboot", "restart"), ("crash", "restart")):
        _text(root, f"on_{event}", action)
    devices = ET.SubElement(root, "devices")
    disk = ET.SubElement(devices, "disk", type="file", device="disk")
    ET.SubElement(disk, "driver", name="qemu", type="qcow2", cache=around.disk_cache)
    ET.SubElement(disk, "source", file=around.disk)
    ET.SubElement(disk, "target", dev="vda", bus="virtio")
    for index, (nic, seat) in enumerate(zip(router.nics, around.seats, strict=True)):
        card = ET.SubElement(devices, "interface", type="bridge")
        ET.SubElement(card, "mac", address=nic.mac)
        ET.SubElement(card, "source", bridge=seat.bridge)
        ET.SubElement(card, "target", dev=tap_name(router.name, index))
        ET.SubElement(card, "model", type="virtio")
        if seat.mtu:
            ET.SubElement(card, "mtu", size=str(seat.mtu))
        ET.SubElement(card, "rom", enabled="no")
    _channel(devices, around)
    return ET.tostring(root, encoding="unicode")


def channel_path(xml: str) -> str:
    """The host's end of a running domain's control channel; "" when it has none."""
    for channel in ET.fromstring(xml).iterfind("./devices/channel[@type='unix']"):  # noqa: S314 from our own libvirt
        target, source = channel.find("target"), channel.find("source")
        if target is not None and source is not None and target.get("name") == CONTROL_PORT:
            return source.get("path", "")
    return ""


def epoch_of(metadata: str) -> int:
    """The epoch in our mark."""
    return int(ET.fromstring(metadata).get("epoch", "0"))  # noqa: S314 written by us and kept by libvirt


def _told(root: ET.Element, router: RouterSpec) -> None:
    """The boot arguments (`appliance.machine.arguments`)."""
    info = ET.SubElement(ET.SubElement(root, "sysinfo", type="smbios"), "oemStrings")
    _text(info, "entry", f"pileus.name={router.name}")
    for side, nic in zip((GUEST, PUBLIC), router.nics, strict=False):
        _text(info, "entry", f"pileus.{side}={nic.mac}")


def _firmware(root: ET.Element, around: Around) -> None:
    system = ET.SubElement(root, "os")
    _text(system, "type", "hvm", arch="x86_64", machine="q35")
    if around.image.kernel is not None and around.image.initrd is not None and not around.accelerated:
        _text(system, "kernel", str(around.image.kernel))
        _text(system, "initrd", str(around.image.initrd))
        _text(system, "cmdline", around.image.command_line)
    else:
        ET.SubElement(system, "boot", dev="hd")
    ET.SubElement(system, "smbios", mode="sysinfo")
    features = ET.SubElement(root, "features")
    ET.SubElement(features, "acpi")
    ET.SubElement(features, "apic")
    if around.accelerated:
        ET.SubElement(root, "cpu", mode="host-model")
    else:
        cpu = ET.SubElement(root, "cpu", mode="custom", match="exact", check="none")
        _text(cpu, "model", "qemu64", fallback="allow")
    ET.SubElement(root, "clock", offset="utc")


def _channel(devices: ET.Element, around: Around) -> None:
    # libvirt chooses the path: one that is short enough, gone with the domain, and for nobody but root.
    channel = ET.SubElement(devices, "channel", type="unix")
    ET.SubElement(channel, "source", mode="bind")
    ET.SubElement(channel, "target", type="virtio", name=CONTROL_PORT)
    serial = ET.SubElement(devices, "serial", type="null")
    ET.SubElement(serial, "log", file=around.console_log, append="off")
    ET.SubElement(serial, "target", port="0")
    ET.SubElement(devices, "memballoon", model="none")
    source = ET.SubElement(devices, "rng", model="virtio")
    _text(source, "backend", "/dev/urandom", model="random")


def _text(parent: ET.Element, tag: str, text: str, **attributes: str) -> None:
    ET.SubElement(parent, tag, attributes).text = text
