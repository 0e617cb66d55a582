"""A physical host: its own network, mount, UTS, PID, IPC and cgroup namespaces, with virtlogd and libvirtd inside.

Its first process is `host_init`; killing that one is the crash of the host, and nothing in it survives. A `SandboxHost`
is only a handle: any process may make one for a host that another process started.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO, Any

from pileus.sandbox import cgroups, ledger, open_vswitch, processes
from pileus.sandbox.commands import SandboxError, attempt, call, ip
from pileus.sandbox.names import cgroup, check_host, host_netns
from pileus.sandbox.plan import READY, STATE, HostPlan, write_config
from pileus.sandbox.requirements import check
from pileus.sandbox.switch import JUMBO_MTU, Switch

START_SECONDS = 30.0
PUBLIC_BRIDGE = "pub0"
"""The host's bridge to the switch; its uplink is eth0 and the host's address lies on it."""

_IDS = uuid.UUID("5d1a3c52-0c5e-4a38-9e34-64a1f8a1c0de")


class HostProcess:
    """A program inside a host. Signals reach the program itself, not the `nsenter` between us and it."""

    def __init__(self, enter: "subprocess.Popen[Any]") -> None:
        self._enter = enter
        self.stdin: IO[Any] | None = enter.stdin
        self.stdout: IO[Any] | None = enter.stdout
        self.stderr: IO[Any] | None = enter.stderr

    @property
    def pid(self) -> int:
        """The program's number as the root namespace sees it; 0 once it has ended."""
        return processes.only_child(self._enter.pid) if self._enter.poll() is None else 0

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the program; fine when it has ended."""
        deadline = time.monotonic() + 5.0
        # `nsenter` needs a moment before its child is there.
        while self._enter.poll() is None and time.monotonic() < deadline:
            pid = self.pid
            if pid and processes.send(pid, processes.start_time(pid), number):
                return
            time.sleep(0.005)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        return self._enter.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit status; `subprocess.TimeoutExpired` after `timeout` seconds."""
        return self._enter.wait(timeout)


class SandboxHost:
    """Host `number` (its address in the switch's subnet) called `name`, with its files below `directory`/`name`.

    With `vlans` it has a second cable and an Open vSwitch bridge (`open_vswitch.BRIDGE`) on it, for tagged networks.
    """

    def __init__(self, name: str, number: int, switch: Switch, directory: Path, *, vlans: bool = False) -> None:
        self.name = check_host(name)
        self.number = number
        self.switch = switch
        self.address: IPv4Address = switch.address(number)
        self.directory = directory / name
        self.vlans = vlans
        self.netns = host_netns(switch.prefix, name)
        self.uuid = str(uuid.uuid5(_IDS, f"{switch.prefix}/{name}"))
        self._shell: subprocess.Popen[bytes] | None = None

    # ---- power

    def start(self) -> None:
        """Power the host on and wait for its libvirtd; what is below its directory is there again."""
        check(vlans=self.vlans)
        if ledger.read_host(self.switch.prefix, self.name) is not None:
            raise SandboxError(f"the host {self.name} is on already, or was left by a crash: stop it first")
        self._record()
        try:
            self._wire()
            cgroups.create(self._cgroup)
            self._boot()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Power the host off at once and take away all it made outside; its directory stays. Fine when it is off."""
        self.kill()
        self._unwire()
        cgroups.remove(self._cgroup)
        ledger.forget_host(self.switch.prefix, self.name)

    def kill(self) -> None:
        """Crash the host: its first process dies, and every other process of it with that."""
        record = ledger.read_host(self.switch.prefix, self.name)
        if record is not None:
            shut(self.switch.prefix, self.name, record)
        if self._shell is not None:
            self._shell.wait(START_SECONDS)
            self._shell = None

    @property
    def running(self) -> bool:
        record = ledger.read_host(self.switch.prefix, self.name)
        return record is not None and processes.alive(record.pid, record.started)

    # ---- programs inside

    def argv(self, argv: Sequence[str]) -> list[str]:
        """`argv` as it must be called out here to run inside the host, in its root directory."""
        record = ledger.read_host(self.switch.prefix, self.name)
        if record is None or not processes.alive(record.pid, record.started):
            raise SandboxError(f"the host {self.name} is not running")
        return ["nsenter", "-t", str(record.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--wd=/", "--", *argv]

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = subprocess.DEVNULL,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        detach: bool = False,
    ) -> HostProcess:
        """Start a program inside; paths must be absolute. `detach` gives it a session of its own, to outlive us."""
        return HostProcess(
            subprocess.Popen(
                self.argv(argv), env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=detach
            )
        )

    def run(self, argv: Sequence[str], *, timeout_seconds: float = 60.0) -> str:
        """Run a program inside and return its output; SandboxError, with what it said, when it fails."""
        try:
            done = subprocess.run(
                self.argv(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_seconds,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise SandboxError(f"{self.name}: {' '.join(argv)}: no end after {timeout_seconds:.0f} s") from error
        if done.returncode != 0:
            raise SandboxError(f"{self.name}: {' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    # ---- how it is built

    @property
    def _cgroup(self) -> str:
        return cgroup(self.switch.prefix, self.name)

    def _record(self, pid: int = 0, shell_pid: int = 0) -> None:
        ledger.write_host(
            self.switch.prefix,
            self.name,
            ledger.HostRecord(
                number=self.number,
                address=str(self.address),
                directory=str(self.directory),
                pid=pid,
                started=processes.start_time(pid) if pid else 0,
                shell_pid=shell_pid,
                shell_started=processes.start_time(shell_pid) if shell_pid else 0,
            ),
        )

    def _wire(self) -> None:
        """Lay the cable: eth0 in the host, `h<number>` in the switch."""
        port = f"h{self.number}"
        ip([f"netns add {self.netns}"])
        ip(
            [f"link add {port} mtu {JUMBO_MTU} type veth peer name eth0 mtu {JUMBO_MTU} netns {self.netns}"],
            netns=self.switch.netns,
        )
        ip([f"link set {port} master br0 up"], netns=self.switch.netns)
        if self.vlans:
            self._wire_trunk()
        mac = call(["ip", "netns", "exec", self.netns, "cat", "/sys/class/net/eth0/address"]).strip()
        ip(
            [
                "link set lo up",
                # A bridge without an address of its own takes the lowest of its ports, and changes with every guest.
                f"link add {PUBLIC_BRIDGE} mtu {JUMBO_MTU} address {mac} type bridge mcast_snooping 0",
                f"link set eth0 master {PUBLIC_BRIDGE} up",
                f"addr add {self.address}/{self.switch.subnet.prefixlen} dev {PUBLIC_BRIDGE}",
                f"link set {PUBLIC_BRIDGE} up",
                f"route add default via {self.switch.gateway}",
            ],
            netns=self.netns,
        )

    def _wire_trunk(self) -> None:
        """Lay the cable for tagged frames: eth1 in the host, `v<number>` in the switch."""
        port, trunk = f"v{self.number}", open_vswitch.TRUNK
        ip(
            [f"link add {port} mtu {JUMBO_MTU} type veth peer name {trunk} mtu {JUMBO_MTU} netns {self.netns}"],
            netns=self.switch.netns,
        )
        ip([f"link set {port} master br0 up"], netns=self.switch.netns)
        ip([f"link set {trunk} up"], netns=self.netns)
        # A switch in user space would pass on checksums that the kernel has left to a card.
        call(["ip", "netns", "exec", self.netns, "ethtool", "-K", trunk, "tx", "off"])

    def _unwire(self) -> None:
        # The kernel takes a dead namespace apart at leisure; the port must be free at once.
        if Path(f"/run/netns/{self.switch.netns}").exists():
            for port in (f"h{self.number}", f"v{self.number}"):
                attempt(["ip", "-n", self.switch.netns, "link", "del", port])
        if Path(f"/run/netns/{self.netns}").exists():
            call(["ip", "netns", "del", self.netns])

    def _boot(self) -> None:
        for part in STATE:
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        write_config(self.directory, self.name, self.uuid, str(self.address))
        said, say = os.pipe()
        plan = HostPlan(
            hostname=self.name,
            netns=f"/run/netns/{self.netns}",
            cgroup=self._cgroup,
            directory=str(self.directory),
            ready_fd=say,
            vlans=self.vlans,
        )
        command = [sys.executable, "-I", "-m", "pileus.sandbox.host_init", "outside", json.dumps(plan.__dict__)]
        try:
            with (self.directory / "log" / "init.log").open("ab") as log:
                self._shell = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[say], start_new_session=True
                )
            os.close(say)
            self._record(shell_pid=self._shell.pid)
            verdict = _hear(said, START_SECONDS)
        finally:
            os.close(said)
        if verdict != READY:
            raise SandboxError(f"the host {self.name} did not start: {verdict or 'no word from it'}")
        self._record(pid=processes.only_child(self._shell.pid), shell_pid=self._shell.pid)


def shut(prefix: str, name: str, record: ledger.HostRecord) -> None:
    """Kill the processes of a host by its record."""
    pid = record.pid
    if not pid and processes.alive(record.shell_pid, record.shell_started):
        pid = processes.only_child(record.shell_pid)
    for number, started in (
        (pid, record.started or processes.start_time(pid)),
        (record.shell_pid, record.shell_started),
    ):
        if number and not processes.kill(number, started):
            raise SandboxError(f"process {number} of the host {name} in {prefix} does not die")


def _hear(descriptor: int, seconds: float) -> str:
    """What the host's first process says before it closes the pipe or says a whole line."""
    deadline = time.monotonic() + seconds
    heard = b""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    while b"\n" not in heard:
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return f"no word from it within {seconds:.0f} s"
        chunk = os.read(descriptor, 4096)
        if not chunk:
            break
        heard += chunk
    return heard.decode(errors="replace").strip()
