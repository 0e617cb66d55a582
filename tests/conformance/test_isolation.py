"""Networks of two hosts keep apart on the wire: real frames through VLANs (Open vSwitch) and VXLANs."""

import json
import os
import select
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from kvm_bench import can_run

from pileus import sandbox
from pileus.agent.backend import Refused
from pileus.agent.backends.kvm.bridges import Bridges
from pileus.agent.backends.kvm.options import KvmOptions
from pileus.sandbox import SandboxHost, Switch
from pileus.sandbox.open_vswitch import BRIDGE
from pileus.sandbox.remote import RemoteObject
from pileus.sandbox.requirements import missing
from pileus.sandbox.watchdog import Watchdog
from pileus.wire.operations import Reason
from pileus.wire.places import Isolation, NetworkRef, Traffic

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.kvm,
    pytest.mark.skipif(not can_run() or bool(missing(vlans=True)), reason="needs root and Open vSwitch"),
]

PATIENCE_SECONDS = 30.0
WIRE = [sys.executable, str(Path(__file__).with_name("wire.py"))]


@dataclass
class Land:
    switch: Switch
    hosts: list[SandboxHost]


@pytest.fixture(scope="module")
def land(tmp_path_factory: pytest.TempPathFactory, watchdog: Watchdog) -> Iterator[Land]:
    """Two hosts that tag. Leaves nothing on the machine, and fails if it does."""
    prefix = f"i{os.getpid() % 1000000}"
    watchdog.sandbox(prefix)
    try:
        switch = sandbox.create_somewhere(prefix)
        directory = tmp_path_factory.mktemp("isolation")
        hosts = [SandboxHost(f"h{n}", n, switch, directory, vlans=True) for n in (1, 2)]
        for host in hosts:
            host.start()
        yield Land(switch, hosts)
        for host in hosts:
            host.stop()
        switch.destroy()
    finally:
        left = sandbox.leftovers(prefix)
        sandbox.sweep(prefix)
    assert left == []


@dataclass
class Hands:
    """The bridges of one host as its agent has them, and guests on them."""

    host: SandboxHost
    bridges: Bridges
    guests: list[str] = field(default_factory=list)

    def guest(self, network: NetworkRef, bridge: str) -> str:
        """A card on the network: the device inside the guest."""
        inner, outer = f"x{bridge}", f"g{bridge}"
        self.host.run(["ip", "link", "add", outer, "master", bridge, "type", "veth", "peer", "name", inner])
        for device in (outer, inner):
            self.host.run(["ip", "link", "set", device, "up"])
        self.guests.append(outer)
        return inner

    def devices(self) -> set[str]:
        """Bridges, uplinks and ports of tagged networks."""
        links = json.loads(self.host.run(["ip", "-j", "link", "show"]))
        ports = self.host.run(["ovs-vsctl", "list-ports", BRIDGE]).split()
        names = {link["ifname"] for link in links} | set(ports)
        return {name for name in names if name.startswith(("br", "vl", "vx")) and name != BRIDGE}


@asynccontextmanager
async def bridges_of(host: SandboxHost, options: KvmOptions) -> AsyncIterator[Bridges]:
    async with RemoteObject(host, "pileus.agent.backends.kvm.bridges:Bridges", options, str(host.address)) as remote:
        yield cast(Bridges, remote)


@pytest.fixture
async def hands(land: Land) -> AsyncIterator[list[Hands]]:
    """Both hosts with nothing on them."""
    async with AsyncExitStack() as stack:
        options = KvmOptions(vlan_switch=BRIDGE)
        yield [Hands(host, await stack.enter_async_context(bridges_of(host, options))) for host in land.hosts]


class Ear:
    """Hears what comes in on a device."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self.next() == "ready"

    def next(self) -> object:
        """The next thing it says; waits for it."""
        assert self._process.stdout is not None
        assert select.select([self._process.stdout], [], [], PATIENCE_SECONDS)[0], "nothing came"
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def network(isolation: Isolation, tag: int) -> NetworkRef:
    return NetworkRef(Traffic.GUEST, isolation, tag)


@pytest.mark.parametrize(
    ("isolation", "port", "bridge"), [(Isolation.VLAN, "v1", "brvl"), (Isolation.VXLAN, "h1", "brvx")]
)
async def test_each_network_hears_its_own_frames_only_and_they_bear_its_tag(
    land: Land, hands: list[Hands], isolation: Isolation, port: str, bridge: str
) -> None:
    first, second = network(isolation, 100), network(isolation, 200)
    sender, receiver = hands
    for each in hands:
        for ref in (first, second):
            await each.bridges.plug(ref)
    senders = [sender.guest(ref, f"{bridge}{ref.tag}") for ref in (first, second)]
    receivers = [receiver.guest(ref, f"{bridge}{ref.tag}") for ref in (first, second)]
    wire = Ear(["ip", "netns", "exec", land.switch.netns, *WIRE, "hear", port])
    ears = [Ear(receiver.host.argv([*WIRE, "hear", device])) for device in receivers]
    try:
        # Each hears the second one's frame last: had it heard the first one's too, that would have come before.
        for text, device in (("to the first", senders[0]), ("to the second", senders[1])):
            sender.host.run([*WIRE, "send", device, text])
        assert [wire.next(), wire.next()] == [
            {"text": "to the first", "tag": 100},
            {"text": "to the second", "tag": 200},
        ]
        assert ears[0].next() == {"text": "to the first", "tag": 0}
        assert ears[1].next() == {"text": "to the second", "tag": 0}
        sender.host.run([*WIRE, "send", senders[0], "again"])
        assert ears[0].next() == {"text": "again", "tag": 0}
    finally:
        for ear in (wire, *ears):
            ear.close()
    for each in hands:
        for ref in (first, second):
            await each.bridges.unplug(ref)
            assert f"{bridge}{ref.tag}" in each.devices(), "a network that a guest is on stays"
        while each.guests:
            each.host.run(["ip", "link", "del", each.guests.pop()])
        for ref in (first, second):
            await each.bridges.unplug(ref)
        assert each.devices() == set()


async def test_a_vlan_is_made_and_removed_once_and_what_a_crash_left_is_completed_or_forgotten(land: Land) -> None:
    host, ref = land.hosts[0], network(Isolation.VLAN, 7)
    stale = ["ovs-vsctl", "add-port", BRIDGE, "vl7", "tag=7", "--", "set", "interface", "vl7", "type=internal"]
    async with bridges_of(host, KvmOptions(vlan_switch=BRIDGE)) as bridges:
        one = Hands(host, bridges)
        for _ in range(2):
            await bridges.plug(ref)
            assert one.devices() == {"brvl7", "vl7"}
        assert host.run(["cat", "/sys/class/net/brvl7/mtu", "/sys/class/net/vl7/mtu"]).split() == ["1500"] * 2
        for _ in range(2):
            await bridges.unplug(ref)
            assert one.devices() == set()
        host.run(stale)
        await bridges.plug(ref)
        await bridges.guard()
        assert one.devices() == {"brvl7", "vl7"}
        await bridges.unplug(ref)
        host.run(stale)
        await bridges.guard()
        assert one.devices() == set()


async def test_a_vlan_that_the_switch_cannot_make_is_refused_and_leaves_nothing(land: Land) -> None:
    host = land.hosts[0]
    async with bridges_of(host, KvmOptions(vlan_switch="pub0")) as bridges:
        await bridges.guard()
        with pytest.raises(Refused, match="no bridge named pub0") as refused:
            await bridges.plug(network(Isolation.VLAN, 8))
        assert refused.value.reason is Reason.FAILED
        assert Hands(host, bridges).devices() == set()
