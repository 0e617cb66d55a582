"""A whole cloud as its users meet it: server and agents as processes, everything else through the public API."""

import http.server
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import httpx

from pileus.cli.client import ApiError, Client, Profile
from pileus.sandbox import SandboxHost

PATIENCE_SECONDS = 120.0


def eventually(what: str, reached: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true value of `reached`; fails with `what` after a deadline. Nothing else here waits by time."""
    until = time.monotonic() + seconds
    pause = 0.05
    while True:
        found = reached()
        if found:
            return found
        assert time.monotonic() < until, f"not within {seconds:.0f} s: {what}"
        time.sleep(pause)
        pause = min(pause * 1.3, 0.5)


@dataclass
class Place:
    """Where an agent runs: `argv` turns a command into one that runs there; `options` are of its backend, as TOML."""

    name: str
    address: str
    argv: Callable[[Sequence[str]], list[str]] = field(default=list)
    options: str = ""


class Files:
    """An HTTP server for templates, in a thread of the test."""

    def __init__(self, address: str, directory: Path) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer((address, 0), partial(Quiet, directory=str(directory)))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://{address}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Cloud:
    """Server, agents and a laid-out zone. `pool` is a directory every host of the cluster sees."""

    def __init__(
        self, directory: Path, *, address: str, subnet: IPv4Network, places: list[Place], backend: str
    ) -> None:
        self.directory = directory
        self.address = address
        self.subnet = subnet
        self.places = places
        self.backend = backend
        self.hypervisor = "KVM" if backend == "kvm" else "Simulator"
        self.endpoint = ""
        self.server: subprocess.Popen[bytes] | None = None
        self.agents: dict[str, subprocess.Popen[bytes]] = {}
        self.zone = self.offering = self.template = ""
        self.sandbox: list[SandboxHost] = []
        self._ports: tuple[int, int] = (0, 0)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "primary").mkdir(exist_ok=True)

    # ---- programs

    def start_server(self) -> None:
        """Start the server (again on the same ports) and wait until it answers."""
        config = self.directory / "server.toml"
        config.write_text(
            f'state_dir = "{self.directory / "server"}"\n[api]\naddress = "127.0.0.1"\nport = {self._ports[0]}\n'
            f'[agents]\naddress = "{self.address}"\nport = {self._ports[1]}\nnames = ["{self.address}"]\n'
        )
        log = self.directory / "server.log"
        begin = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "pileus.server", "--config", str(config)], stdout=out, stderr=out
            )

        def ready() -> re.Match[str] | None:
            assert self.server is not None
            text = log.read_text()[begin:]
            assert self.server.poll() is None, f"the server ended:\n{text}"
            return re.search(r'"api": "[0-9.]+:(\d+)", "agents": (\d+), "event": "server ready"', text)

        found = eventually("the server is ready", ready, seconds=30)
        self._ports = (int(found.group(1)), int(found.group(2)))
        self.endpoint = f"http://127.0.0.1:{self._ports[0]}/client/api"
        eventually("the API answers", lambda: _healthy(self._ports[0]), seconds=30)

    def kill_server(self) -> None:
        """kill -9."""
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        self.server.wait(30)

    def start_agent(self, place: Place) -> None:
        """Start the agent of one place; its configuration was written when its hosts were announced."""
        config = self.directory / place.name / "agent.toml"
        with (self.directory / place.name / "agent.log").open("ab") as out:
            self.agents[place.name] = subprocess.Popen(
                place.argv([sys.executable, "-m", "pileus.agent", "--config", str(config)]), stdout=out, stderr=out
            )

    def agent_pid(self, place: Place) -> int:
        """The agent's own process, which may be a child of the one that entered the host's namespaces."""
        entered = self.agents[place.name].pid
        children = Path(f"/proc/{entered}/task/{entered}/children").read_text().split()
        return int(children[0]) if children else entered

    def kill_agent(self, place: Place) -> None:
        """kill -9 of the agent itself."""
        os.kill(self.agent_pid(place), signal.SIGKILL)
        self.agents[place.name].wait(30)

    def close(self) -> None:
        """End all programs."""
        for agent in self.agents.values():
            if agent.poll() is None:
                agent.terminate()
        for agent in self.agents.values():
            try:
                agent.wait(20)
            except subprocess.TimeoutExpired:
                agent.kill()
                agent.wait(10)
        if self.server is not None and self.server.poll() is None:
            self.server.terminate()
            self.server.wait(30)

    # ---- layout, through the API

    def lay_out(self, image: Path) -> None:
        """Sign in, make a zone with every place as a host, storage and the template; wait until all is ready."""
        admin = self.admin = self._sign_in("admin", (self.directory / "server" / "admin-password").read_text().strip())
        zone = admin.call(
            "createZone", name="z1", networktype="Advanced", dns1=self.address, internaldns1=self.address,
            guestcidraddress="10.1.1.0/24", vlan="1000-1099",
        )["zone"]["id"]  # fmt: skip
        self.zone = str(zone)
        mask = str(self.subnet.netmask)
        pod = admin.call(
            "createPod", zoneid=zone, name="p1", gateway=self.address, netmask=mask,
            startip=str(self.subnet[200]), endip=str(self.subnet[209]),
        )["pod"]["id"]  # fmt: skip
        cluster = admin.call(
            "addCluster", zoneid=zone, podid=pod, clustername="c1", hypervisor=self.hypervisor,
            clustertype="CloudManaged",
        )["cluster"]["id"]  # fmt: skip
        admin.call(
            "createVlanIpRange", zoneid=zone, forvirtualnetwork=True, vlan="untagged", gateway=self.address,
            netmask=mask, startip=str(self.subnet[100]), endip=str(self.subnet[149]),
        )  # fmt: skip
        admin.call("updateConfiguration", name="secstorage.allowed.internal.sites", value=f"{self.address}/32")
        for place in self.places:
            self._announce(place, zone, pod, cluster)
            self.start_agent(place)
        eventually("all hosts are up", lambda: self._all_up("listHosts", "host", len(self.places) + 1))
        admin.call(
            "createStoragePool", zoneid=zone, podid=pod, clusterid=cluster, name="primary1",
            url=f"SharedMountPoint://{self.directory / 'primary'}",
        )  # fmt: skip
        eventually("the pool is up", lambda: self._all_up("listStoragePools", "storagepool", 1))
        self.offering = str(
            admin.call("createServiceOffering", name="tiny", displaytext="tiny", cpunumber=1, cpuspeed=100, memory=128)[
                "serviceoffering"
            ]["id"]
        )
        self.template = self.register(image)

    def register(self, image: Path, *, name: str = "small", **wishes: object) -> str:
        """Register an image over HTTP, public unless the wishes say otherwise, and wait until it is ready."""
        wanted = {"ispublic": True, "isfeatured": True, "passwordenabled": True, **wishes}
        files = Files(self.address, image.parent)
        try:
            os_type = self.admin.list("listOsTypes", "ostype", keyword="Other Linux (64-bit)")[0]["id"]
            made = self.admin.call(
                "registerTemplate", name=name, displaytext=name, format="QCOW2", hypervisor=self.hypervisor,
                ostypeid=os_type, zoneid=self.zone, url=f"{files.url}/{image.name}", **wanted,
            )["template"][0]["id"]  # fmt: skip

            def ready() -> bool:
                found = self.admin.list("listTemplates", "template", templatefilter="self", id=made)
                assert not str(found[0].get("status", "")).startswith("Failed"), found[0]
                return bool(found[0]["isready"])

            eventually("the template is ready", ready)
        finally:
            files.close()
        return str(made)

    def account(self, name: str) -> Client:
        """A new user account, and a client that signs for it."""
        password = secrets.token_urlsafe(12)
        self.admin.call(
            "createAccount", accounttype=0, email=f"{name}@example.org", firstname=name, lastname="Test",
            username=name, password=password,
        )  # fmt: skip
        return self._sign_in(name, password)

    def deploy(self, client: Client, name: str, **more: object) -> dict[str, Any]:
        """Deploy a guest and wait for the job."""
        started = client.call(
            "deployVirtualMachine", zoneid=self.zone, serviceofferingid=self.offering, templateid=self.template,
            name=name, **more,
        )  # fmt: skip
        return dict(client.wait(started["jobid"], seconds=PATIENCE_SECONDS)["virtualmachine"])

    def host_id(self, place: Place) -> str:
        """Id of a place's routing host."""
        return str(self.admin.list("listHosts", "host", name=place.name)[0]["id"])

    def _all_up(self, command: str, entry: str, count: int) -> bool:
        for name, agent in self.agents.items():
            log = self.directory / name / "agent.log"
            assert agent.poll() is None, f"the agent of {name} ended:\n{log.read_text()[-3000:]}"
        found = self.admin.list(command, entry)
        return len(found) == count and all(each["state"] == "Up" for each in found)

    def _announce(self, place: Place, zone: str, pod: str, cluster: str) -> None:
        token = secrets.token_urlsafe(24)
        self.admin.call(
            "addHost", zoneid=zone, podid=pod, clusterid=cluster, hypervisor=self.hypervisor,
            url=f"http://{place.name}", username="root", password=token,
        )  # fmt: skip
        state = self.directory / place.name
        state.mkdir(exist_ok=True)
        text = (
            f'servers = ["{self.address}:{self._ports[1]}"]\nstate_dir = "{state / "agent"}"\n\n'
            f'[[host]]\ntoken = "{token}"\nkind = "Routing"\nbackend = "{self.backend}"\naddress = "{place.address}"\n'
            + place.options
        )
        if place is self.places[0]:
            storage_token = secrets.token_urlsafe(24)
            self.admin.call("addSecondaryStorage", zoneid=zone, url=f"file://{state}/secondary", token=storage_token)
            text += (
                f'\n[[host]]\ntoken = "{storage_token}"\nkind = "SecondaryStorage"\nbackend = "directory"\n'
                f'address = "{place.address}"\n[host.options]\npath = "{state}/secondary"\n'
            )
            if self.backend == "simulator":
                # Its store is on this machine's loopback, where another cloud may have the usual port.
                text += "port = 0\n"
        (state / "agent.toml").write_text(text)

    def _sign_in(self, username: str, password: str) -> Client:
        with httpx.Client(trust_env=False) as browser:
            login = {"command": "login", "username": username, "password": password, "response": "json"}
            session = browser.post(self.endpoint, data=login).json()["loginresponse"]
            keys = {"command": "registerUserKeys", "id": session["userid"], "sessionkey": session["sessionkey"]}
            answer = next(iter(browser.post(self.endpoint, data={**keys, "response": "json"}).json().values()))
        # Users have their keys registered by an administrator; the first administrator does it alone.
        pair = (answer if "userkeys" in answer else self.admin.call("registerUserKeys", id=session["userid"]))[
            "userkeys"
        ]
        return Client(Profile(self.endpoint, pair["apikey"], pair["secretkey"]))


def refused(client: Client, command: str, /, **parameters: object) -> ApiError:
    """The error with which the API, or the job it starts, refuses a call."""
    try:
        client.run(command, **parameters)
    except ApiError as error:
        return error
    raise AssertionError(f"{command} was not refused")


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
