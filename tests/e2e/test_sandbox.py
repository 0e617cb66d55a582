"""Hosts in namespaces, for real: they come up, reach each other, crash, and leave nothing."""

import os
import subprocess
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pileus import sandbox
from pileus.sandbox import SandboxError, SandboxHost, SubnetTaken, Switch, ledger, processes
from pileus.sandbox.watchdog import Watchdog

pytestmark = pytest.mark.kvm

VIRSH = ["virsh", "-c", "qemu:///system"]


def _ping(host: SandboxHost, address: str) -> None:
    host.run(["busybox", "ping", "-c", "1", "-W", "2", address])


def test_hosts_have_a_name_a_libvirt_and_a_way_to_each_other_and_to_the_root(
    switch: Switch, hosts: tuple[SandboxHost, SandboxHost]
) -> None:
    first, second = hosts
    assert [host.run(["hostname"]).strip() for host in hosts] == ["h1", "h2"]
    assert first.uuid in first.run([*VIRSH, "capabilities"])
    assert second.uuid in second.run([*VIRSH, "capabilities"])
    _ping(first, str(second.address))
    _ping(second, str(switch.gateway))
    subprocess.run(["busybox", "ping", "-c", "1", "-W", "2", str(first.address)], check=True, capture_output=True)


def test_a_crash_takes_every_process_and_the_host_comes_back_with_its_files(
    make_host: Callable[[], SandboxHost],
) -> None:
    host = make_host()
    sleeper = host.popen(["sleep", "600"], detach=True)
    host.run(["touch", "/var/lib/libvirt/images/kept"])
    inside = processes.in_netns(Path(f"/run/netns/{host.netns}"))
    host.kill()
    assert sleeper.wait(10) != 0
    assert not host.running
    assert [pid for pid in inside if processes.start_time(pid)] == []
    with pytest.raises(SandboxError):
        host.run(["true"])
    host.stop()
    host.start()
    assert host.run(["ls", "/var/lib/libvirt/images"]).split() == ["kept"]


def test_libvirtd_is_started_again_after_its_death(make_host: Callable[[], SandboxHost]) -> None:
    host = make_host()
    before = host.run(["pgrep", "-x", "libvirtd"]).split()
    host.run(["kill", "-9", *before])
    host.run(
        [
            "sh",
            "-c",
            "for i in $(seq 200); do virsh -c qemu:///system list >/dev/null 2>&1 && exit 0; sleep 0.05; done; exit 1",
        ]
    )
    assert host.run(["pgrep", "-x", "libvirtd"]).split() != before


def test_a_signal_reaches_the_program_inside(make_host: Callable[[], SandboxHost]) -> None:
    host = make_host()
    program = host.popen(
        ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do read x; done"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdout is not None and program.stdin is not None
    assert program.stdout.readline() == b"up\n"
    program.terminate()
    program.stdin.write(b"\n")
    program.stdin.close()
    assert program.wait(10) == 7


def test_a_pulled_cable_cuts_the_host_off_and_back_it_reaches_again(
    switch: Switch, hosts: tuple[SandboxHost, SandboxHost]
) -> None:
    first, second = hosts
    switch.port_down(second.number)
    with pytest.raises(SandboxError):
        _ping(first, str(second.address))
    switch.port_up(second.number)
    _ping(first, str(second.address))


def test_two_sandboxes_live_side_by_side_and_overlapping_ones_are_refused(
    switch: Switch, make_host: Callable[[], SandboxHost], tmp_path: Path, watchdog: Watchdog
) -> None:
    make_host()
    prefix = f"o{os.getpid() % 1000000}"
    watchdog.sandbox(prefix)
    other = sandbox.create_somewhere(prefix)
    try:
        assert not other.subnet.overlaps(switch.subnet)
        twin = SandboxHost("h1", 1, other, tmp_path / "other")
        twin.start()
        assert twin.run(["hostname"]).strip() == "h1"
        with pytest.raises(SubnetTaken):
            Switch("overlap", switch.subnet).create()
        with pytest.raises(SandboxError):
            Switch(other.prefix, IPv4Network("172.31.0.0/24")).create()
        twin.stop()
        other.destroy()
        assert sandbox.leftovers(other.prefix) == []
    finally:
        sandbox.sweep(other.prefix)


def test_a_sweep_needs_no_handle_and_leaves_nothing(switch: Switch, make_host: Callable[[], SandboxHost]) -> None:
    make_host()
    assert sandbox.leftovers(switch.prefix)
    sandbox.sweep(switch.prefix)
    assert sandbox.leftovers(switch.prefix) == []


def test_a_sweep_finds_things_by_name_when_the_ledger_is_lost(
    switch: Switch, make_host: Callable[[], SandboxHost]
) -> None:
    host = make_host()
    ledger.release(switch.prefix)
    sandbox.sweep(switch.prefix)
    assert sandbox.leftovers(switch.prefix) == []
    assert processes.in_netns(Path(f"/run/netns/{host.netns}")) == []


def test_nat_turns_forwarding_on_and_the_last_sandbox_turns_it_back(watchdog: Watchdog) -> None:
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    before = forwarding.read_text()
    switches: list[Switch] = []
    try:
        for letter in "ab":
            watchdog.sandbox(f"{letter}{os.getpid() % 1000000}")
            switches.append(sandbox.create_somewhere(f"{letter}{os.getpid() % 1000000}"))
            switches[-1].connect_root(nat=True)
        assert forwarding.read_text().strip() == "1"
        switches[0].destroy()
        assert forwarding.read_text().strip() == "1"
        switches[1].destroy()
        if not any((record := ledger.read_switch(name)) and record.nat for name in ledger.prefixes()):
            assert forwarding.read_text() == before
    finally:
        for made in switches:
            sandbox.sweep(made.prefix)


def test_a_host_that_cannot_start_says_why_and_leaves_nothing(switch: Switch, tmp_path: Path) -> None:
    host = SandboxHost("broken", 9, switch, tmp_path / "hosts")
    state = host.directory / "var-lib-libvirt"
    state.mkdir(parents=True)
    (state / "qemu").write_text("a file where a directory must be")
    with pytest.raises(SandboxError, match="/var/lib/libvirt/qemu"):
        host.start()
    assert ledger.hosts(switch.prefix) == []
    switch.destroy()
    assert sandbox.leftovers(switch.prefix) == []
