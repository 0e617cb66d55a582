"""A cloud on this machine as a newcomer meets it: up, the pasted line, the tour of the README, down, up, purge."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloud import eventually

from pileus import sandbox
from pileus.cli.client import Client
from pileus.cli.state import State, read_profile
from pileus.sandbox.watchdog import MARK, Watchdog, marked

pytestmark = [pytest.mark.kvm, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SECONDS = 180.0


@dataclass
class Newcomer:
    """Somebody with a shell, a state directory of their own, and the commands of this installation in the path."""

    state: Path
    prefix: str
    options: list[str]
    mark: str
    said: str = ""
    pids: dict[str, int] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PILEUS_STATE": str(self.state), "COLUMNS": "200"}

    def run(self, *words: str, status: int = 0) -> str:
        """`pileus …`; its output."""
        return self._shell(shlex.join([sys.executable, "-m", "pileus.cli", *words]), status)

    def paste(self, text: str) -> str:
        """Lines pasted into bash in the project's directory; their output."""
        return self._shell(text, 0)

    def call(self, command: str, *words: str) -> dict[str, Any]:
        """`pileus call … -o json`."""
        answer: dict[str, Any] = json.loads(self.run("call", command, *words, "-o", "json"))
        return answer

    def listed(self, command: str, entry: str, **parameters: object) -> list[dict[str, Any]]:
        """A list command, without the command line's start."""
        return Client(read_profile(State(self.state).profile)).list(command, entry, **parameters)

    def up(self) -> None:
        self.said = self.run("up", *self.options)
        self.pids = {name: self._pid(name) for name in ("server", "agent")}

    def left(self) -> list[str]:
        """Whatever of the cloud is on this machine now."""
        found = sandbox.leftovers(self.prefix)
        found += [f"process {pid}" for pid in marked(self.mark)]
        found += [f"process {pid}: {line}" for pid, line in _commands() if str(self.state) in line]
        mounts = Path("/proc/self/mounts").read_text().splitlines()
        found += [line for line in mounts if str(self.state) in line or self.prefix in line]
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
        found += [line for line in links if self.prefix in line]
        return found

    def _pid(self, name: str) -> int:
        return int(json.loads((self.state / f"{name}.pid").read_text())["pid"])

    def _shell(self, text: str, status: int) -> str:
        done = subprocess.run(
            ["bash", "-c", text], cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=SECONDS
        )
        assert done.returncode == status, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    """Nothing is up yet. The tests of this module are one story, told in order."""
    sandbox.check()
    prefix = f"u{os.getpid() % 1000000}"
    api, agents = _free_port(), _free_port()
    options = ["--prefix", prefix, "--port", str(api), "--agent-port", str(agents)]
    options += ["--subnet", str(sandbox.free_subnet())]
    # A watchdog of its own: its mark tells the programs of this cloud from all others.
    with Watchdog() as dog:
        dog.sandbox(prefix)
        one = Newcomer(tmp_path_factory.mktemp("up") / "state", prefix, options, os.environ[MARK])
        try:
            one.up()
            yield one
        finally:
            if one.state.exists():
                one.run("down", "--purge")
    assert one.left() == []


def test_up_prints_where_the_cloud_is_and_a_password_that_signs_in(newcomer: Newcomer) -> None:
    endpoint, password = _after("API", newcomer.said), _after("password", newcomer.said)
    login = {"command": "login", "username": "admin", "password": password, "response": "json"}
    answer = httpx.post(endpoint, data=login, trust_env=False)
    assert answer.json()["loginresponse"]["username"] == "admin"
    refused = httpx.post(endpoint, data={**login, "password": password + "x"}, trust_env=False)
    assert refused.status_code == 531


def test_a_second_up_changes_nothing(newcomer: Newcomer) -> None:
    before, pids = _everything(newcomer), newcomer.pids
    newcomer.up()
    assert newcomer.pids == pids
    assert _everything(newcomer) == before


def test_status_and_doctor_find_all_well(newcomer: Newcomer) -> None:
    assert newcomer.run("status").count("running") == 3
    assert "to mend" not in newcomer.run("doctor")


def test_the_line_that_up_prints_deploys_a_guest(newcomer: Newcomer) -> None:
    (line,) = [line.strip() for line in newcomer.said.splitlines() if "deployVirtualMachine" in line]
    newcomer.paste(line)
    assert _states(newcomer) == {"hello": "Running"}
    # This machine is small, and the tour brings a guest of its own.
    vm = newcomer.run("id", "vm", "hello").strip()
    assert newcomer.call("destroyVirtualMachine", f"id={vm}", "expunge=true")


def test_the_tour_of_the_readme_ends_with_the_guests_page(newcomer: Newcomer) -> None:
    section = (ROOT / "README.md").read_text().partition("## A two-minute tour")[2]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    said = newcomer.paste("set -e\n" + blocks[0])
    status = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert status["hostname"] == "web"
    assert status["metadata.service-offering"] == "Tiny Instance"
    assert status["user_data_base64"]


def test_what_the_api_refuses_ends_with_a_text_and_status_1(newcomer: Newcomer) -> None:
    newcomer.run("call", "deployVirtualMachine", "zoneid=7", status=1)
    newcomer.run("call", "listNothing", status=1)
    newcomer.run("id", "vm", "nobody", status=1)


def test_down_leaves_nothing_running(newcomer: Newcomer) -> None:
    assert newcomer.left() != []
    newcomer.run("down")
    eventually("nothing of the cloud is left", lambda: newcomer.left() == [], seconds=10)
    assert newcomer.run("status", status=3).count("stopped") == 3
    newcomer.run("doctor", status=1)
    newcomer.run("down")


def test_the_next_up_goes_on_with_the_same_cloud(newcomer: Newcomer) -> None:
    newcomer.up()
    # A host that was powered off holds no guest that runs.
    eventually("the guest is seen to be off", lambda: _states(newcomer) == {"web": "Stopped"})
    vm = newcomer.run("id", "vm", "web").strip()
    assert newcomer.call("startVirtualMachine", f"id={vm}")["virtualmachine"]["state"] == "Running"
    (address,) = newcomer.call("listPublicIpAddresses")["publicipaddress"]

    def boots() -> str | None:
        try:
            page = httpx.get(f"http://{address['ipaddress']}:8000/cgi-bin/status", trust_env=False, timeout=10).text
        except httpx.HTTPError:
            return None
        found = re.search(r"^boots=(\d+)$", page, re.MULTILINE)
        return found.group(1) if found else None

    assert eventually("the guest answers again", boots) == "2"


def test_purge_forgets_the_cloud(newcomer: Newcomer) -> None:
    newcomer.run("down", "--purge")
    assert not newcomer.state.exists()
    eventually("nothing of the cloud is left", lambda: newcomer.left() == [], seconds=10)


def _everything(newcomer: Newcomer) -> list[tuple[str, str]]:
    """Kind and id of everything that `up` lays out."""
    lists = {
        "listZones": "zone",
        "listPods": "pod",
        "listClusters": "cluster",
        "listHosts": "host",
        "listStoragePools": "storagepool",
        "listVlanIpRanges": "vlaniprange",
        "listServiceOfferings": "serviceoffering",
        "listVirtualMachines": "virtualmachine",
    }
    found = [(kind, each["id"]) for command, kind in lists.items() for each in newcomer.listed(command, kind)]
    found += [("template", each["id"]) for each in newcomer.listed("listTemplates", "template", templatefilter="self")]
    assert {kind for kind, _ in found} >= {"zone", "pod", "cluster", "host", "storagepool", "template"}
    return sorted(found)


def _states(newcomer: Newcomer) -> dict[str, str]:
    return {vm["name"]: vm["state"] for vm in newcomer.listed("listVirtualMachines", "virtualmachine")}


def _after(label: str, said: str) -> str:
    found = re.search(rf"^\s*{label}\s+(\S+)$", said, re.MULTILINE)
    assert found, said
    return found.group(1)


def _commands() -> list[tuple[str, str]]:
    """Number and command line of every process but ourselves."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                found.append((entry, Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode()))
            except OSError:
                continue
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
