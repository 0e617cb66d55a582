"""The machine's side of `pileus up`: switch, host, server and agent as processes and namespaces."""

import re
import socket
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from pileus.cli.daemon import Daemon
from pileus.cli.state import State, write_secret
from pileus.sandbox import SandboxHost, Switch, leftovers, missing, open_vswitch, sweep
from pileus.sandbox.switch import DEFAULT_SUBNET

HOST = "host1"
START_SECONDS = 30.0


class LocalCloudError(Exception):
    """Something of the local cloud did not start; the text says what, and what to look at."""


@dataclass(frozen=True)
class Choices:
    """What may differ between clouds on one machine."""

    prefix: str = "pileus"
    api_port: int = 8080
    agent_port: int = 8250
    subnet: IPv4Network = DEFAULT_SUBNET


class LocalCloud:
    """One server in the root namespace, one host in a sandbox. Every method is fine when it was called before."""

    def __init__(self, state: State, choices: Choices) -> None:
        self.state = state
        self.choices = choices
        self.switch = Switch(choices.prefix, choices.subnet)
        # Direct tagged networks need a switch that tags; everything else works without.
        vlans = not missing(vlans=True)
        self.host = SandboxHost(HOST, 1, self.switch, state.root / "hosts", vlans=vlans)
        self.server = Daemon("server", state.root / "server.pid", state.logs / "server.log")
        self.agent = Daemon("agent", state.root / "agent.pid", state.logs / "agent.log")

    @property
    def endpoint(self) -> str:
        """URL of the API."""
        return f"http://127.0.0.1:{self.choices.api_port}/client/api"

    def start_host(self) -> bool:
        """Power the host on. False when it was on."""
        if self.host.running:
            return False
        self.agent.stop()
        if leftovers(self.choices.prefix):
            sweep(self.choices.prefix)
        self.switch.create()
        self.switch.connect_root(nat=True)
        self.host.start()
        return True

    def start_server(self) -> bool:
        """Start the management server and wait until it answers. False when it ran."""
        if self.server.running():
            return False
        if _answers("127.0.0.1", self.choices.api_port):
            raise LocalCloudError(f"port {self.choices.api_port} is taken by another program: choose one with --port")
        gateway = self.switch.gateway
        write_secret(
            self.state.server_config,
            f'''name = "{HOST}-server"
state_dir = "{self.state.root / "server"}"

[api]
address = "127.0.0.1"
port = {self.choices.api_port}

[agents]
address = "{gateway}"
port = {self.choices.agent_port}
names = ["{gateway}"]
''',
        )
        self.server.start([sys.executable, "-m", "pileus.server", "--config", str(self.state.server_config)])
        self._await_server()
        return True

    def start_agent(self, tokens: tuple[str, str] | None) -> bool:
        """Start the host's agent; `tokens` (of the host and of the secondary storage) enrol it the first time."""
        if self.agent.running():
            return False
        if tokens is not None:
            self._write_agent_config(*tokens)
        if not self.state.agent_config.exists():
            raise LocalCloudError("the host was never enrolled: run `pileus down --purge`, then `pileus up`")
        argv = [sys.executable, "-m", "pileus.agent", "--config", str(self.state.agent_config)]
        self.agent.start(self.host.argv(argv))
        return True

    def stop(self) -> None:
        """Stop everything; data stay."""
        self.agent.stop()
        self.host.stop()
        self.server.stop()
        self.switch.destroy()
        if leftovers(self.choices.prefix):
            sweep(self.choices.prefix)

    def what_is_left(self) -> list[str]:
        """Namespaces, devices, processes and mounts of the cloud that still exist."""
        left = leftovers(self.choices.prefix)
        left += [f"process {d.name} {d.pid}" for d in (self.server, self.agent) if d.running()]
        return left

    def _write_agent_config(self, host_token: str, storage_token: str) -> None:
        address = self.host.address
        write_secret(
            self.state.agent_config,
            f'''servers = ["{self.switch.gateway}:{self.choices.agent_port}"]
state_dir = "{self.state.root / "agent"}"

[[host]]
token = "{host_token}"
kind = "Routing"
backend = "kvm"
address = "{address}"
[host.options]
vlan_switch = "{open_vswitch.BRIDGE if self.host.vlans else ""}"

[[host]]
token = "{storage_token}"
kind = "SecondaryStorage"
backend = "directory"
address = "{address}"
[host.options]
path = "{self.state.root / "secondary"}"
''',
        )

    def _await_server(self) -> None:
        until = time.monotonic() + START_SECONDS
        url = f"http://127.0.0.1:{self.choices.api_port}/healthz"
        while time.monotonic() < until:
            if not self.server.running():
                raise LocalCloudError(
                    f"the server ended at once; the end of {self.server.log}:\n{self.server.last_words()}"
                )
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise LocalCloudError(f"the server does not answer after {START_SECONDS:.0f} s; see {self.server.log}")


def choices_of(state: State, wanted: Choices) -> Choices:
    """The choices of a cloud that exists, read back from its files; `wanted` for a new one."""
    try:
        text = state.server_config.read_text()
    except OSError:
        return wanted
    ports = [int(n) for n in re.findall(r"^port = (\d+)$", text, re.MULTILINE)]
    gateway = re.search(r'^names = \["([0-9.]+)"\]$', text, re.MULTILINE)
    if len(ports) != 2 or gateway is None:
        return wanted
    prefix_file = Path(state.root / "prefix")
    prefix = prefix_file.read_text().strip() if prefix_file.exists() else wanted.prefix
    subnet = IPv4Network(f"{gateway.group(1)}/{wanted.subnet.prefixlen}", strict=False)
    return Choices(prefix=prefix, api_port=ports[0], agent_port=ports[1], subnet=subnet)


def _answers(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((address, port)) == 0
