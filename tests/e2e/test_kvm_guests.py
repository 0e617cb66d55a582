"""Real guests on two KVM hosts: one network across hosts, lives and epochs, and nothing left behind."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pileus import sandbox
from pileus.agent.backend import Credentials, HostSettings, Refused
from pileus.sandbox import SandboxError, SandboxHost, Switch
from pileus.sandbox.remote import RemoteObject
from pileus.sandbox.watchdog import Watchdog
from pileus.wire.messages import VmChange, VmSeen
from pileus.wire.operations import Reason, RouterSpec, VmSpec
from pileus.wire.places import DiskSpec, Isolation, NetworkRef, NicSpec, PoolKind, PoolRef, Traffic
from pileus.wire.router import Lease, RouterConfig, fingerprint

pytestmark = [pytest.mark.kvm, pytest.mark.slow]

TEMPLATE = "small"
NETWORK = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 4001)
STRANGERS = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 4002)
PUBLIC = NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0)
GATEWAY = "10.1.1.1"
BOOT_SECONDS = 120.0


@dataclass
class Land:
    """Two hosts with one pool between them."""

    switch: Switch
    hosts: list[SandboxHost]
    directory: Path
    pool: PoolRef

    def state(self, host: SandboxHost) -> Path:
        return self.directory / f"state-{host.name}"

    def backend(self, host: SandboxHost, **options: Any) -> RemoteObject:
        state = self.state(host)
        state.mkdir(exist_ok=True)
        settings = HostSettings(host.uuid, str(state), str(host.address), Credentials("", "", ""), options)
        return RemoteObject(host, "pileus.agent.backends.kvm:create", settings)

    def console(self, host: SandboxHost, name: str) -> str:
        log = self.state(host) / "console" / f"{name}.log"
        return log.read_text(errors="replace") if log.exists() else ""


@pytest.fixture(scope="module")
def template(guest_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    plain = tmp_path_factory.mktemp("plain") / TEMPLATE
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", str(guest_image), str(plain)], check=True)
    return plain


@pytest.fixture(scope="module")
def land(template: Path, tmp_path_factory: pytest.TempPathFactory, watchdog: Watchdog) -> Iterator[Land]:
    sandbox.check()
    directory = tmp_path_factory.mktemp("land")
    prefix = f"k{os.getpid() % 1000000}"
    watchdog.sandbox(prefix)
    try:
        switch = sandbox.create_somewhere(prefix)
        switch.connect_root()
        hosts = [SandboxHost(f"h{number}", number, switch, directory / "hosts") for number in (1, 2)]
        for host in hosts:
            host.start()
        pool = PoolRef("0d8e6c8c-5e0a-4d43-9be3-1f5f3f1c7a10", PoolKind.FILESYSTEM, str(directory / "pool"))
        (directory / "pool" / "templates").mkdir(parents=True)
        shutil.copy(template, directory / "pool" / "templates" / TEMPLATE)
        yield Land(switch, hosts, directory, pool)
    finally:
        sandbox.sweep(prefix)
        left = sandbox.leftovers(prefix)
    assert left == []


@pytest.fixture
def clean(land: Land) -> Iterator[Land]:
    """A land where the test must leave no domain, no tap, no bridge and no router."""
    yield land
    for host in land.hosts:
        if not host.running:
            host.stop()
            host.start()
        assert host.run(["virsh", "-c", "qemu:///system", "list", "--all", "--name"]).split() == []
        assert devices(host) == {"lo", "eth0", "pub0"}
        assert host.run(["ip", "netns", "list"]).split() == []


def devices(host: SandboxHost) -> set[str]:
    links = msgspec.json.decode(host.run(["ip", "-j", "link", "show"]))
    # Some kernels give every namespace devices of their own.
    return {link["ifname"] for link in links} - {"ifb0", "ifb1", "tunl0", "sit0", "gre0", "ip6tnl0"}


def guest(land: Land, number: int, *, network: NetworkRef = NETWORK, epoch: int = 1, **more: Any) -> VmSpec:
    return VmSpec(
        name=f"i-2-{number}-VM",
        uuid=f"22222222-2222-4222-8222-{number:012d}",
        epoch=epoch,
        cpus=1,
        cpu_mhz=500,
        ram_mib=128,
        disks=(DiskSpec(land.pool, f"root-{number}", 0),),
        nics=(NicSpec(f"02:00:4c:00:00:{number:02x}", f"10.1.1.{number}", 24, network, 0, gateway=GATEWAY),),
        vnc_password="console1",
        **more,
    )


def router(land: Land, number: int, network: NetworkRef, *guests: VmSpec) -> tuple[RouterSpec, RouterConfig]:
    spec = RouterSpec(
        name=f"r-{number}-VM",
        uuid=f"33333333-3333-4333-8333-{number:012d}",
        epoch=1,
        nics=(NicSpec(f"02:00:4c:01:00:{number:02x}", GATEWAY, 24, network, 0),),
    )
    leases = tuple(Lease(vm.nics[0].mac, vm.nics[0].ip, vm.name.lower()) for vm in guests)
    services = ("dhcp", "dns", "gateway")
    return spec, RouterConfig(
        f"net-{number}", 1, GATEWAY, 24, "cloud.internal", dns=("192.0.2.53",), services=services, leases=leases
    )


async def until(what: Callable[[], Awaitable[bool] | bool], message: str, seconds: float = BOOT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while True:
        result = what()
        if result if isinstance(result, bool) else await result:
            return
        assert time.monotonic() < deadline, message
        await asyncio.sleep(0.1)


def from_router(host: SandboxHost, number: int, url: str) -> str:
    """What the guest answers to its router; empty while it does not."""
    namespace = f"pileus-r-{number}-VM"
    try:
        return host.run(["ip", "netns", "exec", namespace, "timeout", "10", "busybox", "wget", "-q", "-O", "-", url])
    except SandboxError:
        return ""


async def ready(land: Land, host: SandboxHost, vm: VmSpec) -> None:
    await until(
        lambda: "ready eth0" in land.console(host, vm.name),
        f"{vm.name} did not get its lease",
    )


def test_guests_of_one_network_reach_each_other_across_hosts_and_nobody_else(clean: Land) -> None:
    land = clean
    first, second = land.hosts
    alice, bob = guest(land, 10), guest(land, 11)
    # The same addresses on another network, as another account may have them.
    mallory = guest(land, 12, network=STRANGERS)
    mallory = msgspec.structs.replace(mallory, nics=(msgspec.structs.replace(mallory.nics[0], ip="10.1.1.11"),))

    async def work() -> None:
        async with land.backend(first) as here, land.backend(second) as there:
            for backend in (here, there):
                await backend.open(lambda *news: None)
                await backend.attach_pool(land.pool)
            for vm in (alice, bob, mallory):
                await here.create_volume(land.pool, vm.disks[0].volume, 0, TEMPLATE)
            spec, config = router(land, 1, NETWORK, alice, bob)
            facts = await here.start_router(spec, config)
            assert facts.fingerprint == fingerprint(config)
            strange, strange_config = router(land, 2, STRANGERS, mallory)
            await there.start_router(strange, strange_config)
            await asyncio.gather(here.start_domain(alice), there.start_domain(bob), there.start_domain(mallory))
            await ready(land, first, alice)
            await ready(land, second, bob)
            await ready(land, second, mallory)

            across = from_router(first, 1, "http://10.1.1.10/cgi-bin/ping?host=10.1.1.11")
            assert across.startswith("exit=0"), across
            assert f"mac.eth0={bob.nics[0].mac}" in from_router(first, 1, "http://10.1.1.11/cgi-bin/status")
            assert f"mac.eth0={mallory.nics[0].mac}" in from_router(second, 2, "http://10.1.1.11/cgi-bin/status")
            # Alice's address exists on her network only.
            lost = from_router(second, 2, "http://10.1.1.11/cgi-bin/ping?host=10.1.1.10")
            assert lost and not lost.startswith("exit=0"), lost
            seen = {vm.name: vm for vm in await there.inventory()}
            assert seen[bob.name] == VmSeen(bob.name, bob.uuid, 1, running=True)
            assert seen[strange.name].router and seen[strange.name].running
            assert await there.networks_of(bob.name) == (NETWORK,)
            stats = await here.stats(first.uuid)
            assert [vm.name for vm in stats.vms] == [alice.name]
            assert stats.vms[0].cpu_seconds > 0 and stats.vms[0].received_bytes > 0 and stats.vms[0].sent_bytes > 0
            assert 0 < stats.cpu_used <= 1 and stats.memory_used_bytes > 0 and stats.sent_bytes > 0

            # A network goes when its last user has gone, and not before.
            await there.remove_domain(bob.name)
            await there.unplug_network(NETWORK)
            assert "brvx4001" not in devices(second)
            await here.remove_domain(alice.name)
            await here.unplug_network(NETWORK)
            assert "brvx4001" in devices(first)
            await here.remove_router(spec.name)
            await here.unplug_network(NETWORK)
            assert "brvx4001" not in devices(first)
            await there.remove_domain(mallory.name)
            await there.remove_router(strange.name)
            await there.unplug_network(STRANGERS)
            for backend in (here, there):
                assert await backend.inventory() == []
                await backend.close()

    asyncio.run(work())


def test_a_guest_stops_when_asked_keeps_its_disk_and_its_lives_follow_each_other(clean: Land) -> None:
    land = clean
    host = land.hosts[0]
    vm = guest(land, 20)
    news: list[tuple[str, str, int, VmChange]] = []

    async def work() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: news.append(what))
            await backend.attach_pool(land.pool)
            await backend.create_volume(land.pool, "root-20", 0, TEMPLATE)
            console = await backend.start_domain(vm)
            assert console.vnc_host == str(host.address) and console.vnc_port >= 5900
            assert await backend.start_domain(vm) == console
            await until(lambda: "boot 1 of this disk" in land.console(host, vm.name), "the guest did not boot")
            assert await backend.shut_down(vm.name, 60)
            assert await backend.seen(vm.name) == VmSeen(vm.name, vm.uuid, 1, running=False)
            assert await backend.shut_down(vm.name, 60)

            # The next life replaces the former one, and the former may not come back.
            later = msgspec.structs.replace(vm, epoch=2)
            await backend.start_domain(later)
            assert await backend.seen(vm.name) == VmSeen(vm.name, vm.uuid, 2, running=True)
            await until(lambda: "boot 2 of this disk" in land.console(host, vm.name), "the guest lost its disk")
            with pytest.raises(Refused) as refused:
                await backend.start_domain(vm)
            assert refused.value.reason is Reason.STALE_EPOCH
            assert await backend.seen(vm.name) == VmSeen(vm.name, vm.uuid, 2, running=True)

            for _ in range(2):
                await backend.remove_domain(vm.name)
                await backend.unplug_network(NETWORK)
            assert await backend.seen(vm.name) is None
            assert not land.console(host, vm.name)
            await backend.delete_volume(land.pool, "root-20")
            await backend.close()

    asyncio.run(work())
    # All that happened was asked for.
    assert news == []


def test_what_a_guest_does_unasked_is_told_once_even_while_libvirtd_is_away(clean: Land) -> None:
    land = clean
    host = land.hosts[0]
    crashing, stopping = guest(land, 30), guest(land, 31)
    news: list[tuple[str, str, int, VmChange]] = []

    async def work() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: news.append(what))
            await backend.attach_pool(land.pool)
            for vm in (crashing, stopping):
                await backend.create_volume(land.pool, vm.disks[0].volume, 0, TEMPLATE)
                await backend.start_domain(vm)
            host.run(["pkill", "-9", "-f", f"guest={crashing.name}"])
            await until(lambda: len(news) == 1, "the crash was not told")
            assert news == [(crashing.name, crashing.uuid, 1, VmChange.CRASHED)]

            (daemon,) = host.run(["pgrep", "-x", "libvirtd"]).split()
            host.run(["kill", "-9", daemon])
            host.run(["pkill", "-9", "-f", f"guest={stopping.name}"])
            await until(lambda: len(news) == 2, "the end during the daemon's absence was not told")
            assert news[1][:3] == (stopping.name, stopping.uuid, 1)
            assert news[1][3] in (VmChange.CRASHED, VmChange.STOPPED)
            assert not (await backend.seen(stopping.name)).running
            for vm in (crashing, stopping):
                await backend.remove_domain(vm.name)
            await backend.unplug_network(NETWORK)
            await backend.close()

    asyncio.run(work())
    assert len(news) == 2


def test_a_new_agent_knows_the_guests_of_the_old_one(clean: Land) -> None:
    land = clean
    host = land.hosts[0]
    vm = guest(land, 40, epoch=5)
    news: list[tuple[str, str, int, VmChange]] = []

    async def work() -> None:
        async with land.backend(host) as old:
            await old.open(lambda *what: None)
            await old.attach_pool(land.pool)
            await old.create_volume(land.pool, "root-40", 0, TEMPLATE)
            await old.start_domain(vm)
        async with land.backend(host) as backend:
            await backend.open(lambda *what: news.append(what))
            assert await backend.inventory() == [VmSeen(vm.name, vm.uuid, 5, running=True)]
            assert await backend.networks_of(vm.name) == (NETWORK,)
            host.run(["virsh", "-c", "qemu:///system", "destroy", vm.name])
            await until(lambda: bool(news), "the end of an inherited guest was not told")
            assert news == [(vm.name, vm.uuid, 5, VmChange.STOPPED)]
            await backend.remove_domain(vm.name)
            await backend.unplug_network(NETWORK)
            await backend.close()

    asyncio.run(work())


def test_domains_of_others_are_neither_listed_nor_touched(clean: Land) -> None:
    land = clean
    host = land.hosts[0]
    xml = land.directory / "foreign.xml"
    xml.write_text(
        "<domain type='qemu'><name>i-2-50-VM</name><memory unit='MiB'>32</memory>"
        "<os><type arch='x86_64' machine='pc'>hvm</type></os></domain>"
    )
    host.run(["virsh", "-c", "qemu:///system", "define", str(xml)])
    vm = guest(land, 50)

    async def work() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: None)
            await backend.attach_pool(land.pool)
            await backend.create_volume(land.pool, "root-50", 0, TEMPLATE)
            assert await backend.inventory() == []
            assert await backend.seen(vm.name) is None
            with pytest.raises(Refused) as refused:
                await backend.start_domain(vm)
            assert refused.value.reason is Reason.FAILED
            await backend.remove_domain(vm.name)
            await backend.close()

    asyncio.run(work())
    assert vm.name in host.run(["virsh", "-c", "qemu:///system", "list", "--all", "--name"])
    host.run(["virsh", "-c", "qemu:///system", "undefine", vm.name])


def test_a_guest_that_cannot_start_leaves_nothing(clean: Land) -> None:
    land = clean
    host = land.hosts[0]
    broken = guest(land, 60)

    async def refused(backend: RemoteObject, vm: VmSpec) -> Reason:
        with pytest.raises(Refused) as refusal:
            await backend.start_domain(vm)
        await backend.unplug_network(NETWORK)
        assert await backend.inventory() == []
        return refusal.value.reason

    async def work() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: None)
            await backend.attach_pool(land.pool)
            assert await refused(backend, broken) is Reason.MISSING
            await backend.create_volume(land.pool, "root-60", 0, TEMPLATE)
            assert await refused(backend, msgspec.structs.replace(broken, ram_mib=1 << 30)) is Reason.NO_ROOM
            assert await refused(backend, msgspec.structs.replace(broken, cpus=1000)) is Reason.NO_ROOM
            # A file that is no QCOW2: the hypervisor itself says no.
            (Path(land.pool.path) / "volumes" / "root-60").write_bytes(b"not a disk")
            assert await refused(backend, broken) is Reason.FAILED
            await backend.close()

    asyncio.run(work())


def test_networks_come_and_go_together_without_a_race(clean: Land) -> None:
    land = clean
    host = land.hosts[1]

    async def work() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: None)
            for _ in range(3):
                networks = [NetworkRef(Traffic.GUEST, Isolation.VXLAN, tag) for tag in (5001, 5002, 5003)]
                await asyncio.gather(*(backend.plug_network(network) for network in networks * 4))
                assert {f"brvx{network.tag}" for network in networks} <= devices(host)
                await asyncio.gather(*(backend.unplug_network(network) for network in networks * 4))
                assert not any(name.startswith(("brvx", "vx")) for name in devices(host))
            await backend.plug_network(PUBLIC)
            await backend.unplug_network(PUBLIC)
            assert "pub0" in devices(host)
            await vlan(backend, host)
            await backend.close()

    asyncio.run(work())


async def vlan(backend: RemoteObject, host: SandboxHost) -> None:
    """VLANs work, or are refused with the reason, as the kernel has them."""
    network = NetworkRef(Traffic.GUEST, Isolation.VLAN, 77)
    try:
        await backend.plug_network(network)
    except Refused as refused:
        assert refused.reason is Reason.FAILED
        assert "802.1Q" in refused.text
    else:
        assert {"brvl77", "vl77"} <= devices(host)
        await backend.unplug_network(network)
    assert not {"brvl77", "vl77"} & devices(host)


def test_nobody_on_a_guest_network_reaches_the_host_over_its_bridge(clean: Land) -> None:
    land = clean
    host = land.hosts[0]
    intruder = ["ip", "netns", "exec", "intruder"]

    def reaches() -> bool:
        try:
            host.run([*intruder, "busybox", "ping", "-c", "1", "-W", "1", str(host.address)])
        except SandboxError:
            return False
        return True

    async def work() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: None)
            await backend.plug_network(NETWORK)
            host.run(["ip", "netns", "add", "intruder"])
            host.run(["ip", "link", "add", "x0", "type", "veth", "peer", "name", "eth0", "netns", "intruder"])
            host.run(["ip", "link", "set", "x0", "master", "brvx4001", "up"])
            host.run([*intruder, "ip", "link", "set", "eth0", "up"])
            host.run([*intruder, "ip", "addr", "add", "10.1.1.66/24", "dev", "eth0"])
            host.run([*intruder, "ip", "route", "add", str(host.address), "dev", "eth0"])
            # The host knows the way back, so that only the guard is in the way.
            host.run(["ip", "route", "add", "10.1.1.66", "dev", "brvx4001"])
            assert not reaches()
            host.run(["nft", "delete", "table", "inet", "pileus-guard"])
            assert reaches()
            await backend.close()
            await backend.open(lambda *what: None)
            assert not reaches()
            host.run(["ip", "link", "del", "x0"])
            host.run(["ip", "netns", "del", "intruder"])
            await backend.unplug_network(NETWORK)
            await backend.close()

    asyncio.run(work())


@pytest.mark.parametrize("os_type", ["Other Linux (64-bit)", "Windows Server 2008 (64-bit)"])
def test_libvirt_takes_every_kind_of_guest(clean: Land, os_type: str) -> None:
    land = clean
    host = land.hosts[0]
    disks = tuple(DiskSpec(land.pool, f"disk-{number}", number) for number in (0, 1, 5, 6))
    nic = guest(land, 90).nics[0]
    public = NicSpec("02:00:4c:02:00:01", "0.0.0.0", 0, PUBLIC, 1)
    vm = guest(land, 90, limit_cpu=True, os_type=os_type, iso="tools.iso")
    vm = msgspec.structs.replace(vm, disks=disks, nics=(nic, public), cpus=2)

    async def work() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: None)
            await backend.attach_pool(land.pool)
            (Path(land.pool.path) / "volumes" / "tools.iso").write_bytes(bytes(1 << 20))
            for disk in disks:
                await backend.create_volume(land.pool, disk.volume, 1 << 20, "")
            await backend.start_domain(vm)
            tuned = host.run(["virsh", "-c", "qemu:///system", "schedinfo", vm.name])
            assert "cpu_shares     : 1000" in tuned
            assert "vcpu_period    : 100000" in tuned
            assert {"t90n0", "t90n1"} <= devices(host)
            await backend.remove_domain(vm.name)
            await backend.unplug_network(NETWORK)
            for name in (*(disk.volume for disk in disks), "tools.iso"):
                await backend.delete_volume(land.pool, name)
            await backend.close()

    asyncio.run(work())


def test_network_rates_hold_and_their_devices_go_with_the_guest(clean: Land) -> None:
    land = clean
    host = land.hosts[0]
    vm = guest(land, 70)
    vm = msgspec.structs.replace(vm, nics=(msgspec.structs.replace(vm.nics[0], rate_mbps=10),))

    async def work() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: None)
            await backend.attach_pool(land.pool)
            await backend.create_volume(land.pool, "root-70", 0, TEMPLATE)
            await backend.start_domain(vm)
            for device in ("t70n0", "f70n0"):
                assert "tbf" in host.run(["tc", "qdisc", "show", "dev", device])
            assert "f70n0" in host.run(["tc", "filter", "show", "dev", "t70n0", "parent", "ffff:"])
            await backend.remove_domain(vm.name)
            await backend.unplug_network(NETWORK)
            await backend.close()

    asyncio.run(work())


def test_a_crashed_host_comes_back_with_its_guests_off(clean: Land) -> None:
    land = clean
    host = land.hosts[1]
    vm = guest(land, 80, epoch=3)

    async def before() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: None)
            await backend.attach_pool(land.pool)
            await backend.create_volume(land.pool, "root-80", 0, TEMPLATE)
            await backend.start_domain(vm)
            host.kill()
            with pytest.raises(ConnectionError):
                await backend.inventory()

    async def after() -> None:
        async with land.backend(host) as backend:
            await backend.open(lambda *what: None)
            assert await backend.inventory() == [VmSeen(vm.name, vm.uuid, 3, running=False)]
            await backend.remove_domain(vm.name)
            assert await backend.inventory() == []
            await backend.close()

    asyncio.run(before())
    host.stop()
    host.start()
    asyncio.run(after())
