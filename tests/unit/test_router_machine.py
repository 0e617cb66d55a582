"""Routers as virtual machines, as far as they can be looked at without one: domain, template, dispatch."""

import gzip
import lzma
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pileus.agent.backend import Credentials, Refused
from pileus.agent.backends.kvm import router_xml
from pileus.agent.backends.kvm.domain_xml import NAMESPACE, Seat
from pileus.agent.backends.kvm.router_image import RouterImages, SystemImage, command_line, unpack
from pileus.agent.backends.kvm.routers import Routers
from pileus.wire.messages import VmSeen
from pileus.wire.operations import Reason, RouterFacts, RouterMachine, RouterSpec
from pileus.wire.places import Isolation, NetworkRef, NicSpec, Traffic
from pileus.wire.router import RouterConfig

NETWORK = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 7)
NICS = tuple(NicSpec(f"02:00:00:00:00:0{n}", f"10.1.{n}.1", 24, NETWORK, n) for n in (0, 1))
MACHINE = RouterMachine("https://store/image", "ab" * 32)
ROUTER = RouterSpec("r-5-VM", "5f0c7a4e-0000-4000-8000-000000000005", 3, NICS, 2, 300, 192, MACHINE)
DIRECT = SystemImage(Path("/t/disk"), Path("/t/vmlinux"), Path("/t/initrd"), "console=ttyS0 a=<b>")
CONFIG = RouterConfig("n", 1, "10.1.1.1", 24, "d.test")


def domain(image: SystemImage = DIRECT, *, accelerated: bool = False, router: RouterSpec = ROUTER) -> ET.Element:
    seats = tuple(Seat("brvx7", 1450 if index == 0 else 0) for index in range(len(router.nics)))
    around = router_xml.Around(accelerated, image, "/s/r-5-VM/disk.qcow2", "/s/r-5-VM/log", seats, "none")
    return ET.fromstring(router_xml.build(router, around))


def texts(root: ET.Element, path: str) -> list[str]:
    return [each.text or "" for each in root.findall(path)]


def test_the_machine_is_told_its_name_and_its_cards() -> None:
    assert texts(domain(), "./sysinfo[@type='smbios']/oemStrings/entry") == [
        "pileus.name=r-5-VM",
        "pileus.guest=02:00:00:00:00:00",
        "pileus.public=02:00:00:00:00:01",
    ]
    one_card = RouterSpec("r-5-VM", ROUTER.uuid, 3, NICS[:1], machine=MACHINE)
    assert len(texts(domain(router=one_card), "./sysinfo/oemStrings/entry")) == 2
    assert domain().find("./os/smbios[@mode='sysinfo']") is not None


def test_the_machine_has_the_size_of_its_offering_and_its_cards_on_their_bridges() -> None:
    root = domain()
    assert (texts(root, "memory"), texts(root, "vcpu"), texts(root, "./cputune/shares")) == (["192"], ["2"], ["600"])
    cards = root.findall("./devices/interface")
    assert [card.find("target").get("dev") for card in cards] == ["t5n0", "t5n1"]  # type: ignore[union-attr]
    assert [card.find("mtu") is not None for card in cards] == [True, False]


def test_a_kernel_is_booted_at_once_only_where_unpacking_it_is_slow() -> None:
    root = domain()
    assert (texts(root, "./os/kernel"), texts(root, "./os/cmdline")) == (["/t/vmlinux"], ["console=ttyS0 a=<b>"])
    for other in (domain(accelerated=True), domain(SystemImage(Path("/t/disk")))):
        assert other.find("./os/kernel") is None
        assert other.find("./os/boot[@dev='hd']") is not None


def test_nobody_takes_the_machine_for_a_guest() -> None:
    (mark,) = list(domain().find("metadata"))  # type: ignore[arg-type]
    assert NAMESPACE not in mark.tag
    assert router_xml.epoch_of(ET.tostring(mark, encoding="unicode")) == 3


def test_the_machine_has_no_screen_and_no_network_console() -> None:
    assert domain().findall("./devices/graphics") + domain().findall("./devices/video") == []


def test_the_control_channel_is_found_among_others() -> None:
    template = "<domain><devices>{}</devices></domain>"
    other = "<channel type='unix'><source mode='bind' path='/a'/><target type='virtio' name='org.qemu.ga'/></channel>"
    ours = "<channel type='unix'><source mode='bind' path='/b'/><target type='virtio' name='pileus.control'/></channel>"
    assert router_xml.channel_path(template.format(other + ours)) == "/b"
    assert router_xml.channel_path(template.format(other)) == ""


def kernel(payload: bytes) -> bytes:
    """A bzImage with this payload behind four sectors of setup code."""
    head = bytearray(5 * 512)
    head[0x1F1] = 4
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 32, len(payload))
    return bytes(head) + bytes(32) + payload


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress])
def test_a_packed_kernel_is_unpacked(pack: object) -> None:
    assert callable(pack)
    elf = b"\x7fELF" + bytes(range(200))
    # The decompressor of the kernel finds its size behind the payload.
    assert unpack(kernel(pack(elf) + struct.pack("<I", len(elf)))) == elf


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"MZ" * 2000,
        kernel(b"\x02\x21\x4c\x18 lz4"),
        kernel(lzma.compress(b"no ELF")),
        kernel(lzma.compress(b"\x7fELF" * 50)[:30] + b"?" * 60),
        kernel(b"\xfd7zXZ\0")[:2600],
    ],
)
def test_what_is_no_kernel_that_we_know_is_left_packed(image: bytes) -> None:
    assert not unpack(image).startswith(b"no")
    assert unpack(image)[:4] in (b"", b"\x7fELF")


def test_the_command_line_is_the_boot_loaders() -> None:
    assert command_line("DEFAULT a\nLABEL a\n KERNEL vmlinuz\n APPEND console=ttyS0 quiet\n") == "console=ttyS0 quiet"
    assert command_line("DEFAULT a\n") == ""


@pytest.mark.anyio
async def test_templates_that_no_router_boots_from_go(tmp_path: Path) -> None:
    images = RouterImages(tmp_path / "images", credentials=Credentials("", "", ""), max_image_bytes=1)
    await images.keep_only(())
    for name in ("ab" * 32, "cd" * 32, "ef.part"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "disk.qcow2").touch()
    await images.keep_only({"ab" * 32})
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["ab" * 32]


@pytest.mark.parametrize("sha256", ["", "../../etc", "AB" * 32, "ab" * 31])
def test_a_checksum_that_is_none_is_no_file_name(tmp_path: Path, sha256: str) -> None:
    images = RouterImages(tmp_path, credentials=Credentials("", "", ""), max_image_bytes=1)
    with pytest.raises(Refused) as refused:
        images.place(sha256)
    assert refused.value.reason is Reason.REJECTED


class Kind:
    """A launcher that remembers: epochs by name."""

    def __init__(self) -> None:
        self.lives: dict[str, RouterSpec] = {}

    async def start(self, router: RouterSpec, config: RouterConfig, bridges: tuple[str, ...]) -> RouterFacts:
        self.lives[router.name] = router
        return RouterFacts(config.generation, "f")

    async def configure(self, name: str, config: RouterConfig) -> RouterFacts:
        if name not in self.lives:
            raise Refused(Reason.MISSING, name)
        return RouterFacts(config.generation, "f")

    async def remove(self, name: str) -> None:
        self.lives.pop(name, None)

    async def seen(self) -> list[VmSeen]:
        return [
            VmSeen(name=one.name, uuid=one.uuid, epoch=one.epoch, running=True, router=True)
            for one in self.lives.values()
        ]

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        return tuple(nic.network for nic in self.lives[name].nics) if name in self.lives else ()

    async def revive(self) -> None: ...


def life(epoch: int, machine: RouterMachine | None) -> RouterSpec:
    return RouterSpec("r-5-VM", ROUTER.uuid, epoch, NICS, machine=machine)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize(("first", "then"), [(None, MACHINE), (MACHINE, None)])
async def test_a_newer_life_of_the_other_kind_replaces_the_one_before(
    first: RouterMachine | None, then: RouterMachine | None
) -> None:
    namespaces, machines = Kind(), Kind()
    routers = Routers(namespaces, machines)
    await routers.start(life(1, first), CONFIG, ("a", "b"))
    await routers.start(life(2, then), CONFIG, ("a", "b"))
    assert [(one.name, one.epoch) for one in await routers.seen()] == [("r-5-VM", 2)]
    assert bool(machines.lives) is (then is not None)
    assert (await routers.configure("r-5-VM", CONFIG)).generation == 1
    assert await routers.networks_of("r-5-VM") == (NETWORK, NETWORK)
    for epoch in (1, 2):
        with pytest.raises(Refused) as refused:
            await routers.start(life(epoch, first), CONFIG, ("a", "b"))
        assert refused.value.reason is Reason.STALE_EPOCH
    await routers.remove("r-5-VM")
    assert await routers.seen() == []
    with pytest.raises(Refused):
        await routers.configure("r-5-VM", CONFIG)
