"""What of the sandbox needs no root: names, control group trees, processes known by start time."""

import os
import signal
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from pileus.sandbox import SandboxError, Switch, cgroups, processes
from pileus.sandbox.host import SandboxHost
from pileus.sandbox.names import root_device

CLASSIC = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "28 24 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_on_version_1_groups_nest_below_our_own_and_memory_is_left_alone() -> None:
    found = cgroups.trees(CLASSIC, "4:memory:/box\n2:cpu,cpuacct:/box/7\n1:name=systemd:/\n0::/\n")
    assert found == [
        cgroups.Tree(Path("/sys/fs/cgroup/cpu,cpuacct"), Path("/sys/fs/cgroup/cpu,cpuacct/box/7"), "cpu,cpuacct")
    ]


def test_on_version_2_groups_lie_at_the_top() -> None:
    found = cgroups.trees(UNIFIED, "0::/user.slice/session-1.scope\n")
    assert found == [cgroups.Tree(Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup"), "")]
    assert found[0].unified


@pytest.mark.parametrize("prefix", ["", "Upper", "a-b", "ninechars", "../x", "1st"])
def test_a_prefix_that_could_not_name_things_is_refused(prefix: str) -> None:
    with pytest.raises(SandboxError):
        Switch(prefix)


@pytest.mark.parametrize("name", ["", "switch", "a/b", "-x", "a" * 16])
def test_a_host_name_that_could_not_name_things_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(SandboxError):
        SandboxHost(name, 1, Switch("abc"), tmp_path)


def test_interface_names_fit_the_kernel() -> None:
    assert len(root_device("abcdefgh")) <= 15


def test_host_numbers_beyond_the_subnet_are_refused() -> None:
    switch = Switch("abc", IPv4Network("172.30.9.0/28"))
    assert str(switch.address(13)) == "172.30.9.13"
    assert str(switch.gateway) == "172.30.9.14"
    for number in (0, 14, 15):
        with pytest.raises(SandboxError):
            switch.address(number)


def test_hosts_of_different_sandboxes_have_different_uuids(tmp_path: Path) -> None:
    uuids = {SandboxHost(name, 1, Switch(prefix), tmp_path).uuid for name in ("h1", "h2") for prefix in ("aa", "bb")}
    assert len(uuids) == 4


def test_a_process_number_taken_over_by_another_process_is_spared() -> None:
    victim = subprocess.Popen(["sleep", "60"])
    try:
        started = processes.start_time(victim.pid)
        assert not processes.send(victim.pid, started - 1, signal.SIGKILL)
        assert processes.alive(victim.pid, started)
        assert processes.kill(victim.pid, started)
        assert victim.wait(5) == -signal.SIGKILL
    finally:
        victim.kill()
        victim.wait()
    assert not processes.alive(victim.pid, started)


def test_we_never_count_ourselves_among_the_processes_of_a_namespace() -> None:
    assert os.getpid() not in processes.in_netns(Path("/proc/self/ns/net"))
