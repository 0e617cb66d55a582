"""Options of a KVM host, what it finds out about itself, and names of its networks; without libvirt."""

import asyncio
from typing import Any

import pytest

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import machine
from pileus.agent.backends.kvm.bridges import Bridges
from pileus.agent.backends.kvm.machine import CpuSample
from pileus.agent.backends.kvm.options import KvmOptions, parse
from pileus.wire.operations import Reason
from pileus.wire.places import Isolation, NetworkRef, Traffic

CPUINFO = """\
processor\t: 0
cpu MHz\t\t: 2399.998
flags\t\t: fpu vme sse sse2 {flag} aes
bogomips\t: 4799.99
"""


def test_without_options_everything_has_a_default() -> None:
    assert parse({}) == KvmOptions()


def test_options_are_taken() -> None:
    assert parse({"public_bridge": "br-ext", "cpus": 2}) == KvmOptions(public_bridge="br-ext", cpus=2)


@pytest.mark.parametrize(
    "options",
    [
        {"public.bridge": "pub0"},
        {"cpus": "2"},
        {"cpus": True},
        {"cpus": -1},
        {"public_bridge": "a b"},
        {"vxlan_device": "../eth0"},
        {"vlan_device": "sixteen-letters-"},
        {"vlan_switch": "a/b"},
        {"vlan_switch": "vlan0", "vlan_device": "eth1"},
        {"public_vlan_switch": "vlan0", "public_vlan_device": "eth1"},
        {"disk_cache": "unsafe"},
        {"vxlan_port": 65536},
    ],
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        parse(options)


def test_the_device_alone_is_no_proof_of_acceleration() -> None:
    assert not machine.can_accelerate(CPUINFO.format(flag="hypervisor"))
    assert not machine.can_accelerate(CPUINFO.format(flag="xsvmx"))


def test_the_speed_of_a_core_comes_from_the_best_source_there_is() -> None:
    info = CPUINFO.format(flag="")
    assert machine.core_mhz(2600, info) == 2600
    assert machine.core_mhz(0, info) == 2400
    assert machine.core_mhz(0, "BogoMIPS\t: 100.00\n") == 50


def test_load_is_the_busy_share_between_two_samples() -> None:
    assert machine.cpu_used(CpuSample(100, 100), CpuSample(150, 250)) == 0.25
    assert machine.cpu_used(CpuSample(100, 100), CpuSample(100, 100)) == 0.0
    assert machine.cpu_used(CpuSample(100, 100), CpuSample(1, 1)) == 0.0


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (NetworkRef(Traffic.GUEST, Isolation.VXLAN, 2**24 - 1), "brvx16777215"),
        (NetworkRef(Traffic.GUEST, Isolation.VLAN, 4094), "brvl4094"),
        (NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0), "ext"),
        (NetworkRef(Traffic.GUEST, Isolation.UNTAGGED, 0), "lan"),
        (NetworkRef(Traffic.CONTROL, Isolation.UNTAGGED, 0), "ext"),
    ],
)
def test_networks_map_to_bridges(network: NetworkRef, name: str) -> None:
    bridges = Bridges(KvmOptions(public_bridge="ext", guest_bridge="lan"), "192.0.2.1")
    assert bridges.name_of(network) == name


@pytest.mark.parametrize(
    ("isolation", "tag"),
    [(Isolation.VXLAN, 0), (Isolation.VXLAN, 2**24), (Isolation.VLAN, 0), (Isolation.VLAN, 4095), (Isolation.VLAN, -1)],
)
def test_a_tag_out_of_range_is_refused_before_anything_is_made(isolation: Isolation, tag: int) -> None:
    bridges = Bridges(KvmOptions(), "192.0.2.1")
    network = NetworkRef(Traffic.GUEST, isolation, tag)
    with pytest.raises(Refused) as refused:
        asyncio.run(bridges.plug(network))
    assert refused.value.reason is Reason.REJECTED


@pytest.mark.parametrize(
    ("options", "traffic"),
    [
        ({"vlan_device": "nothere0"}, Traffic.GUEST),
        ({"vlan_device": "nothere0"}, Traffic.PUBLIC),
        ({"vlan_switch": "nothere0"}, Traffic.GUEST),
        ({"vlan_switch": "here0", "public_vlan_device": "nothere0"}, Traffic.PUBLIC),
        ({"vlan_device": "here0", "public_vlan_switch": "nothere0"}, Traffic.PUBLIC),
        ({"vlan_device": "nothere0", "public_vlan_switch": "here0"}, Traffic.GUEST),
    ],
)
def test_a_vlan_needs_what_takes_it_out_of_the_host(options: dict[str, str], traffic: Traffic) -> None:
    bridges = Bridges(parse(options), "192.0.2.1")
    with pytest.raises(Refused) as refused:
        asyncio.run(bridges.plug(NetworkRef(traffic, Isolation.VLAN, 4000)))
    assert refused.value.reason is Reason.FAILED
    assert "nothere0" in refused.value.text


def test_an_untagged_network_needs_the_administrators_bridge() -> None:
    bridges = Bridges(KvmOptions(public_bridge="nothere0"), "192.0.2.1")
    with pytest.raises(Refused) as refused:
        asyncio.run(bridges.plug(NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0)))
    assert refused.value.reason is Reason.FAILED
    assert "nothere0" in refused.value.text
