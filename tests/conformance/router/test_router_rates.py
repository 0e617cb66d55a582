"""Rates of routers and guests: what the kernel says of them, and that no more bytes pass than they allow."""

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from router_world import OUTSIDE_IP, PUBLIC_IP, RunningRouter, World, run, socket_in

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import rates
from pileus.wire.operations import Reason, VmSpec
from pileus.wire.places import Isolation, NetworkRef, NicSpec, Traffic

RATE_MBPS = 1
BYTES_A_SECOND = RATE_MBPS * 1_000_000 // 8
DATAGRAM = b"x" * 1400
DATAGRAMS = 1500
"""Sixteen seconds' worth at the rate, handed over as fast as the kernel takes it."""

SO_SNDBUFFORCE = 32
"""Linux; Python has no name for it."""

SLACK = rates.BURST_BYTES + BYTES_A_SECOND * rates.LATENCY_MILLISECONDS // 1000
"""What a bucket lets pass at once, and what it keeps waiting."""


@dataclass(frozen=True)
class Bucket:
    """A queueing discipline as the kernel has it, and what it has counted."""

    kind: str
    bytes_a_second: int
    sent: int
    drops: int


def bucket(device: str, namespace: str = "") -> Bucket:
    where = ["-n", namespace] if namespace else []
    (root,) = [
        each for each in json.loads(run("tc", *where, "-j", "-s", "qdisc", "show", "dev", device)) if each.get("root")
    ]
    return Bucket(root["kind"], root.get("options", {}).get("rate", 0), root["bytes"], root["drops"])


def flood(out: socket.socket, address: str) -> float:
    """Send all datagrams; how many seconds it took."""
    with out:
        # As many senders would: one with a buffer of the ordinary size waits for the queue instead of overfilling it.
        out.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 64 << 20)
        out.sendto(b"hello", (address, 9))
        began = time.monotonic()
        for _ in range(DATAGRAMS):
            out.sendto(DATAGRAM, (address, 9))
        return time.monotonic() - began


def assert_bounded(before: Bucket, after: Bucket, seconds: float) -> None:
    """No more has passed than the rate allows in so many seconds, and what was too much was dropped."""
    assert after.drops > before.drops
    assert 0 < after.sent - before.sent <= BYTES_A_SECOND * seconds + SLACK


def test_the_public_side_of_a_router_passes_no_more_than_its_rate_either_way(
    router: RunningRouter, world: World
) -> None:
    router.start(rate_mbps=RATE_MBPS)
    inside, number = world.router_namespace, world.router_name.split("-")[1]
    for device, namespace, sender, address in (
        ("eth2", inside, inside, OUTSIDE_IP),
        (f"r{number}-1", "", world.outside, PUBLIC_IP),
    ):
        before = bucket(device, namespace)
        assert (before.kind, before.bytes_a_second) == ("tbf", BYTES_A_SECOND)
        seconds = flood(socket_in(sender, socket.SOCK_DGRAM), address)
        assert_bounded(before, bucket(device, namespace), seconds)
    assert bucket("eth0", inside).kind == "noqueue"
    router.start(rate_mbps=RATE_MBPS)
    assert bucket("eth2", inside).kind == "tbf"


def test_a_router_without_a_rate_has_no_limit(router: RunningRouter, world: World) -> None:
    router.start()
    assert bucket("eth2", world.router_namespace).kind == "noqueue"


VM = f"i-2-{os.getpid() % 100000}-VM"
TAP = f"t{os.getpid() % 100000}n0"


def guest(rate_mbps: int) -> VmSpec:
    card = NicSpec(
        "02:00:00:00:07:01", "10.9.9.2", 24, NetworkRef(Traffic.GUEST, Isolation.VXLAN, 7), 0, rate_mbps=rate_mbps
    )
    return VmSpec(
        VM,
        "5f0c7a4e-0000-4000-8000-000000000009",
        1,
        cpus=1,
        cpu_mhz=100,
        ram_mib=64,
        disks=(),
        nics=(card,),
        vnc_password="",
    )


@pytest.fixture
def tap(world: World) -> Iterator[str]:
    """What stands for a guest: the namespace at the other end of its tap."""
    name = f"t{world.tag}-vm"
    run("ip", "netns", "add", name)
    try:
        run("ip", "link", "add", TAP, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "addr", "add", "10.9.9.1/24", "dev", TAP)
        run("ip", "link", "set", TAP, "up")
        run("ip", "-n", name, "addr", "add", "10.9.9.2/24", "dev", "eth0")
        run("ip", "-n", name, "link", "set", "eth0", "up")
        yield name
    finally:
        run("ip", "link", "del", TAP, check=False)
        run("ip", "netns", "del", name)


def test_a_guest_sends_and_gets_no_more_than_its_rate(tap: str) -> None:
    asyncio.run(rates.apply(guest(RATE_MBPS)))
    asyncio.run(rates.apply(guest(RATE_MBPS)))
    mirror = rates.mirror_name(TAP)
    try:
        before = bucket(mirror)
        assert (before.kind, before.bytes_a_second) == ("tbf", BYTES_A_SECOND)
        seconds = flood(socket_in(tap, socket.SOCK_DGRAM), "10.9.9.1")
        assert_bounded(before, bucket(mirror), seconds)
        before = bucket(TAP)
        assert (before.kind, before.bytes_a_second) == ("tbf", BYTES_A_SECOND)
        seconds = flood(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "10.9.9.2")
        assert_bounded(before, bucket(TAP), seconds)
    finally:
        asyncio.run(rates.clear(VM))
    assert mirror not in run("ip", "link", "show")


def test_a_rate_that_cannot_be_set_is_refused_and_leaves_no_mirror(world: World) -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(rates.apply(guest(RATE_MBPS)))
    assert refused.value.reason is Reason.FAILED
    asyncio.run(rates.clear(VM))
    assert rates.mirror_name(TAP) not in run("ip", "link", "show")
