"""The libvirt domain of a guest, built and read back without libvirt."""

import xml.etree.ElementTree as ET

import msgspec
import pytest

from pileus.agent.backends.kvm import domain_xml, rates
from pileus.agent.backends.kvm.domain_xml import Seat, Surroundings
from pileus.wire.operations import VmSpec
from pileus.wire.places import DiskSpec, Isolation, NetworkRef, NicSpec, PoolKind, PoolRef, Traffic

POOL = PoolRef("0d8e6c8c-5e0a-4d43-9be3-1f5f3f1c7a10", PoolKind.FILESYSTEM, "/pool")
ROOT = DiskSpec(POOL, "root", 0)
DATA = DiskSpec(POOL, "data", 5)
GUESTS = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 4711)
PUBLIC = NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0)
VM = VmSpec(
    name="i-2-3-VM",
    uuid="22222222-2222-4222-8222-222222222222",
    epoch=7,
    cpus=2,
    cpu_mhz=500,
    ram_mib=128,
    disks=(ROOT, DATA),
    nics=(
        NicSpec("02:00:00:00:00:01", "10.1.1.5", 24, GUESTS, 0, rate_mbps=100),
        NicSpec("02:00:00:00:00:02", "172.30.0.101", 24, PUBLIC, 1),
    ),
    vnc_password="secret-and-long",
)
AROUND = Surroundings(
    accelerated=False,
    address="172.30.0.1",
    cpu_mhz=2000,
    console_log="/state/console/i-2-3-VM.log",
    disks={ROOT: "/pool/volumes/root", DATA: "/pool/volumes/data"},
    seats={GUESTS: Seat("brvx4711", 1450), PUBLIC: Seat("pub0")},
)


def built(vm: VmSpec = VM, around: Surroundings = AROUND) -> ET.Element:
    return ET.fromstring(domain_xml.build(vm, around))


def text(root: ET.Element, path: str) -> str:
    found = root.find(path)
    assert found is not None, path
    return found.text or ""


def attributes(root: ET.Element, path: str) -> dict[str, str]:
    found = root.find(path)
    assert found is not None, path
    return dict(found.attrib)


def test_a_guest_is_emulated_unless_the_host_can_accelerate() -> None:
    assert built().get("type") == "qemu"
    fast = Surroundings(**{**AROUND.__dict__, "accelerated": True})
    assert built(around=fast).get("type") == "kvm"
    assert attributes(built(around=fast), "cpu")["mode"] == "host-model"


def test_what_was_sold_is_what_the_guest_gets() -> None:
    root = built()
    assert (text(root, "name"), text(root, "uuid")) == (VM.name, VM.uuid)
    assert (text(root, "memory"), attributes(root, "memory")["unit"]) == ("128", "MiB")
    assert text(root, "vcpu") == "2"
    assert attributes(root, "cpu/topology")["cores"] == "2"


def test_shares_follow_the_gigahertz_sold() -> None:
    assert text(built(), "cputune/shares") == "1000"
    double = msgspec.structs.replace(VM, cpu_mhz=1000)
    assert domain_xml.shares(double) == 2 * domain_xml.shares(VM)
    assert domain_xml.shares(msgspec.structs.replace(VM, cpus=400, cpu_mhz=4000)) == 262_144


def test_only_a_limited_guest_has_a_quota_and_it_never_exceeds_a_core() -> None:
    assert built().find("cputune/quota") is None
    limited = msgspec.structs.replace(VM, limit_cpu=True)
    assert text(built(limited), "cputune/quota") == "25000"
    assert domain_xml.quota_microseconds(msgspec.structs.replace(limited, cpu_mhz=9000), 2000) == 100_000
    assert domain_xml.quota_microseconds(msgspec.structs.replace(limited, cpu_mhz=1), 3000) == 1000


def test_the_mark_survives_the_way_through_libvirt() -> None:
    mark = built().find(f"metadata/{{{domain_xml.NAMESPACE}}}vm")
    assert mark is not None
    read = domain_xml.mark_of(ET.tostring(mark, encoding="unicode"))
    assert read == domain_xml.DomainMark(7, (GUESTS, PUBLIC))
    # libvirt hands the element out without its namespace.
    bare = '<vm epoch="7"><network traffic="Guest" isolation="vxlan" tag="4711"/></vm>'
    assert domain_xml.mark_of(bare) == domain_xml.DomainMark(7, (GUESTS,))


def test_metadata_of_others_is_not_taken_for_ours() -> None:
    with pytest.raises(ValueError, match="no metadata of ours"):
        domain_xml.mark_of('<instance epoch="1"/>')


def test_every_text_is_escaped() -> None:
    nasty = msgspec.structs.replace(VM, vnc_password="\"'<&>]]>", os_type='"><x/>')
    around = Surroundings(**{**AROUND.__dict__, "console_log": '/a"b<c>&.log'})
    root = built(nasty, around)
    assert attributes(root, "devices/graphics")["passwd"] == "\"'<&>]]>"
    assert attributes(root, "devices/serial/log")["file"] == '/a"b<c>&.log'
    assert root.find(".//x") is None


def test_nics_sit_on_their_bridges_with_the_room_the_network_has() -> None:
    nics = built().findall("devices/interface")
    assert [nic.find("source").get("bridge") for nic in nics] == ["brvx4711", "pub0"]  # type: ignore[union-attr]
    assert [nic.find("mac").get("address") for nic in nics] == [nic.mac for nic in VM.nics]  # type: ignore[union-attr]
    assert attributes(nics[0], "mtu") == {"size": "1450"}
    assert nics[1].find("mtu") is None


def test_rates_are_left_to_our_own_traffic_control() -> None:
    assert built().find(".//bandwidth") is None


@pytest.mark.parametrize(
    ("name", "device", "tap"),
    [("i-2-3-VM", 0, "t3n0"), ("i-1000000-999999999-VM", 15, "t999999999n15")],
)
def test_taps_are_named_for_their_guest(name: str, device: int, tap: str) -> None:
    assert domain_xml.tap_name(name, device) == tap
    assert len(tap) <= 15
    assert len(rates.mirror_name(tap)) <= 15


def test_taps_of_strange_names_differ_and_fit() -> None:
    names = {domain_xml.tap_name(name, device) for name in ("web", "db", "i-1-1-VM") for device in (0, 15)}
    assert len(names) == 6
    assert all(len(name) <= 15 and not name.startswith("vnet") for name in names)


def test_disks_have_a_place_of_their_own_beside_the_cd_drive() -> None:
    for os_type in ("Other Linux (64-bit)", "Windows Server 2008"):
        disks = tuple(DiskSpec(POOL, f"v{number}", number) for number in range(8))
        around = Surroundings(**{**AROUND.__dict__, "disks": {disk: f"/pool/{disk.volume}" for disk in disks}})
        root = built(msgspec.structs.replace(VM, disks=disks, os_type=os_type), around)
        targets = [target.get("dev") for target in root.findall("devices/disk/target")]
        assert len(set(targets)) == 9
        assert targets[0] in {"vda", "sda"}


def test_the_cd_drive_is_empty_without_an_iso() -> None:
    drive = "devices/disk[@device='cdrom']"
    assert built().find(f"{drive}/source") is None
    around = Surroundings(**{**AROUND.__dict__, "iso": "/pool/volumes/x.iso"})
    assert attributes(built(around=around), f"{drive}/source") == {"file": "/pool/volumes/x.iso"}


def test_the_console_is_on_the_hosts_address_and_needs_a_password() -> None:
    graphics = attributes(built(), "devices/graphics")
    assert graphics["passwd"] == "secret-a"
    assert attributes(built(), "devices/graphics/listen") == {"type": "address", "address": "172.30.0.1"}


def test_the_console_port_is_read_from_a_running_domain_only() -> None:
    running = "<domain><devices><graphics type='vnc' port='5903'/></devices></domain>"
    assert domain_xml.console_port(running) == 5903
    assert domain_xml.console_port(running.replace("5903", "-1")) == 0
    assert domain_xml.console_port("<domain><devices/></domain>") == 0
