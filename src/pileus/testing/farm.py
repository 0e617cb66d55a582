"""A farm on one machine as its operators have it: servers as processes on one database, simulated hosts on the wire.

Agents run as threads of this process, with the agent program's own code over TLS, so what their hosts hold can be seen.
"""

import asyncio
import http.client
import http.server
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import select

from pileus.agent import main as agent
from pileus.agent.backends import simulator
from pileus.agent.backends.simulator import SimulatedHosts, SimulatedStore
from pileus.agent.backends.simulator.world import Image
from pileus.agent.settings import from_document
from pileus.cli.client import Client, Profile
from pileus.server.db.tables.host import host
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database
from pileus.server.registered import register_all
from pileus.testing.simulation.invariants import End, broken, is_quiet
from pileus.testing.simulation.workload import Ack

LOOPBACK = "127.0.0.1"
READY = '"server ready"'
PATIENCE_SECONDS = 120.0

_FIRST_PORT, _LAST_PORT = 15000, 30000
"""Below the ports that the kernel gives to outgoing connections: one of a server that is down stays free."""


class NotWithin(AssertionError):
    """What was waited for did not come."""


def eventually(what: str, reached: Callable[[], Any], *, seconds: float = PATIENCE_SECONDS) -> Any:
    """The first true value of `reached`. Raises NotWithin, with `what`, after so many seconds."""
    until = time.monotonic() + seconds
    pause = 0.01
    while True:
        found = reached()
        if found:
            return found
        if time.monotonic() > until:
            raise NotWithin(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)
        pause = min(pause * 1.3, 0.25)


@dataclass
class ServerProcess:
    """One management server. `start`, `kill` and `stop` it as often as you like; it keeps its name and ports."""

    name: str
    directory: Path
    database: str
    settings: str = ""
    """More lines for its table `[api]`."""
    workers: int = 4
    process: "subprocess.Popen[bytes] | None" = None
    starts: int = 0
    ports: tuple[int, int] = (0, 0)
    _began: int = 0

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ports = free_port(), free_port()
        self._config = self.directory / "server.toml"
        self._config.write_text(
            f'name = "{self.name}"\nstate_dir = "{self.directory}"\ndatabase = "{self.database}"\n'
            f'[api]\naddress = "{LOOPBACK}"\nport = {self.ports[0]}\n{self.settings}\n'
            f'[agents]\naddress = "{LOOPBACK}"\nport = {self.ports[1]}\nnames = ["{LOOPBACK}"]\n'
            f"[jobs]\nworkers = {self.workers}\n"
        )

    @property
    def endpoint(self) -> str:
        """Where its API is."""
        return f"http://{LOOPBACK}:{self.ports[0]}/client/api"

    @property
    def log(self) -> Path:
        """What it says."""
        return self.directory / "server.log"

    def start(self) -> None:
        """Begin to start; `ready` says when it is there."""
        self._began = self.log.stat().st_size if self.log.exists() else 0
        # Programs start here as they do in the field: with their modules compiled.
        env = {name: entry for name, entry in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pileus.server", "--config", str(self._config)], stdout=out, stderr=out, env=env
            )
        self.starts += 1

    def ready(self) -> bool:
        """Whether it serves. Raises AssertionError with its last words when it has ended by itself."""
        assert self.process is not None  # noqa: S101
        with self.log.open("rb") as file:
            file.seek(self._began)
            said = file.read().decode(errors="replace")
        if self.process.poll() is not None:
            raise AssertionError(f"server {self.name} ended:\n{said[-3000:]}")
        return READY in said

    def wait_ready(self) -> None:
        """Until it serves."""
        eventually(f"server {self.name} is ready", self.ready)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None  # noqa: S101
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """SIGTERM, and its exit status once it has ended."""
        assert self.process is not None  # noqa: S101
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def health(self) -> int:
        """What a load balancer finds at /healthz: a status, 0 when nobody answers."""
        asked = http.client.HTTPConnection(LOOPBACK, self.ports[0], timeout=10)
        try:
            asked.request("GET", "/healthz")
            return asked.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            asked.close()


class AgentThread:
    """The agent program in a thread, for hosts whose tokens it is given."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._settings = from_document(document)
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._begun = threading.Event()
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:
            self.failure = error
        finally:
            self._begun.set()

    async def _main(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self._begun.set()
        await agent.run(self._settings, stop=self._stop)

    def close(self) -> None:
        """End it."""
        self._begun.wait(PATIENCE_SECONDS)
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)


@dataclass(frozen=True)
class Scene:
    """What the hosts of a farm hold, for the invariants."""

    database: Database
    hosts: SimulatedHosts
    stores: dict[int, SimulatedStore]

    def open_jobs(self) -> list[str]:
        """What each open job stands at."""
        with self.database.read() as tx:
            rows = tx.all(select(job).where(job.c.open == 1).order_by(job.c.id).limit(50))
        return [
            f"{row['workflow']}#{row['id']} {row['phase']} at {row['position']} held by {row['lease_owner']}"
            f" waits for {row['waiting_for'] or 'time'} {row['error_text'] or ''}".rstrip()
            for row in rows
        ]


@dataclass
class Shape:
    """How large a farm is made. A guest takes 100 MHz and 128 MiB."""

    servers: int = 2
    agents: int = 2
    hosts_of_agent: int = 2
    host: dict[str, Any] = field(default_factory=lambda: {"cpus": 16, "cpu_mhz": 2000, "memory_mib": 65536})
    workers: int = 4
    settings: str = ""
    """More lines for the servers' table `[api]`."""


class Farm:
    """Servers, agents, a zone with storage, an offering and a template. Close it at the end."""

    def __init__(self, directory: Path, database: str, shape: Shape | None = None) -> None:
        self.directory = directory
        self.shape = shape or Shape()
        self.url = database
        self.servers = [
            ServerProcess(f"s{n + 1}", directory / f"s{n + 1}", database, self.shape.settings, self.shape.workers)
            for n in range(self.shape.servers)
        ]
        self.agents: list[AgentThread] = []
        self.database = Database(database)
        self._world = f"farm {directory}"
        self._images = directory / "secondary"
        self.zone = self.offering = self.template = ""

    def __enter__(self) -> "Farm":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start all servers at once, as after a power cut, and sign in."""
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.wait_ready()
        self.admin = Client(self._sign_in("admin", self.password))

    def close(self) -> None:
        """End everything."""
        for each in self.agents:
            each.close()
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                server.process.terminate()
        for server in self.servers:
            if server.process is not None:
                try:
                    server.process.wait(30)
                except subprocess.TimeoutExpired:
                    server.kill()
        self.database.dispose()
        simulator.worlds.pop(self._world, None)

    # ---- layout

    def lay_out(self) -> None:
        """A zone with all hosts up, primary and secondary storage, an offering and a ready template."""
        admin = self.admin
        zone = admin.call(
            "createZone", name="z1", networktype="Advanced", dns1=LOOPBACK, internaldns1=LOOPBACK,
            guestcidraddress="10.1.1.0/24", vlan="1000-1199",
        )["zone"]["id"]  # fmt: skip
        pod = admin.call(
            "createPod", zoneid=zone, name="p1", gateway="192.0.2.1", netmask="255.255.255.0",
            startip="192.0.2.2", endip="192.0.2.254",
        )["pod"]["id"]  # fmt: skip
        cluster = admin.call(
            "addCluster", zoneid=zone, podid=pod, clustername="c1", hypervisor="Simulator", clustertype="CloudManaged"
        )["cluster"]["id"]
        admin.call(
            "createVlanIpRange", zoneid=zone, forvirtualnetwork=True, vlan="untagged", gateway="198.51.100.1",
            netmask="255.255.255.0", startip="198.51.100.2", endip="198.51.100.254",
        )  # fmt: skip
        for name, value in (
            ("secstorage.allowed.internal.sites", f"{LOOPBACK}/32"),
            ("max.account.user.vms", "-1"),
            ("max.account.volumes", "-1"),
        ):
            admin.call("updateConfiguration", name=name, value=value)
        self.zone = str(zone)
        for number in range(self.shape.agents):
            self._add_agent(number, zone, pod, cluster)
        count = self.shape.agents * self.shape.hosts_of_agent + 1
        eventually("all hosts are up", lambda: self.hosts_up() == count)
        admin.call(
            "createStoragePool", zoneid=zone, podid=pod, clusterid=cluster, name="primary1",
            url=f"SharedMountPoint://{self.directory / 'primary'}",
        )  # fmt: skip
        eventually("the pool is up", lambda: self._states("listStoragePools", "storagepool") == ["Up"])
        self.offering = str(
            admin.call("createServiceOffering", name="tiny", displaytext="tiny", cpunumber=1, cpuspeed=100, memory=128)[
                "serviceoffering"
            ]["id"]
        )
        self.template = self._register()

    def spread(self) -> None:
        """Let agents connect anew until every server holds one: each chooses its server by chance. Before any guest."""
        wanted = {server.name for server in self.servers}
        count = len(self.holders())
        while set(self.holders().values()) != wanted:
            last = self.agents.pop()
            last.close()
            self.agents.insert(0, AgentThread(last.document))
            eventually(
                "all hosts are up again", lambda: self.hosts_up() == count and None not in self.holders().values()
            )

    def hosts_up(self) -> int:
        """How many hosts are Up."""
        for each in self.agents:
            if each.failure is not None:
                raise AssertionError(f"an agent ended: {each.failure!r}")
        return self._states("listHosts", "host").count("Up")

    def account(self, name: str) -> dict[str, str]:
        """A new account: what names it as the owner in a call."""
        made = self.admin.call(
            "createAccount", accounttype=0, email=f"{name}@example.org", firstname=name, lastname="Test",
            username=name, password=secrets.token_urlsafe(12),
        )["account"]  # fmt: skip
        return {"account": made["name"], "domainid": made["domainid"]}

    def order(self, name: str, **more: object) -> dict[str, object]:
        """The parameters of deployVirtualMachine for a guest of this name."""
        what = {"zoneid": self.zone, "serviceofferingid": self.offering, "templateid": self.template}
        return {**what, "name": name, **more}

    def client(self, *servers: ServerProcess) -> Client:
        """The administrator's client through these servers only."""
        keys = self.admin.profile
        return Client(Profile(",".join(each.endpoint for each in servers), keys.api_key, keys.secret_key))

    # ---- what there is

    def scene(self) -> Scene:
        """The hosts as they are now."""
        fleet = SimulatedHosts()
        fleet.world = simulator.worlds[self._world]
        with self.database.read() as tx:
            storage = tx.scalar(select(host.c.id).where(host.c.kind == "SecondaryStorage", host.c.live == 1))
        store = SimulatedStore("", capacity_bytes=1 << 40)
        folder = self._images / "images"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        store.images = {name: Image(0, 0) for name in names}
        return Scene(self.database, fleet, {int(storage): store})

    def at_rest(self) -> bool:
        """Whether nothing is under way."""
        with self.database.read() as tx:
            return is_quiet(tx)

    def wrong(
        self, acks: Sequence[Ack] = (), *, last_fault_at: int = 0, seconds: float = PATIENCE_SECONDS
    ) -> list[str]:
        """What is wrong with the cloud once it has come to rest, for which it has so many seconds."""
        register_all()
        try:
            eventually("the farm is at rest", self.at_rest, seconds=seconds)
            quiet = True
        except NotWithin:
            quiet = False
        with self.database.read() as tx:
            return broken(End(self.scene(), tx, tuple(acks), last_fault_at, quiet))

    def holders(self) -> dict[str, str | None]:
        """Which server each host's line goes to."""
        with self.database.read() as tx:
            return {row["name"]: row["server"] for row in tx.all(select(host).where(host.c.live == 1))}

    # ---- parts

    def _states(self, command: str, entry: str) -> Sequence[str]:
        return [each["state"] for each in self.admin.list(command, entry)]

    def _add_agent(self, number: int, zone: str, pod: str, cluster: str) -> None:
        hosts: list[dict[str, Any]] = []
        for of_agent in range(self.shape.hosts_of_agent):
            token = secrets.token_urlsafe(24)
            self.admin.call(
                "addHost", zoneid=zone, podid=pod, clusterid=cluster, hypervisor="Simulator",
                url=f"http://h{number + 1}-{of_agent + 1}", username="root", password=token,
            )  # fmt: skip
            options = {**self.shape.host, "world": self._world}
            hosts.append({"token": token, "backend": "simulator", "address": LOOPBACK, "options": options})
        if number == 0:
            token = secrets.token_urlsafe(24)
            self.admin.call("addSecondaryStorage", zoneid=zone, url=f"file://{self._images}", token=token)
            options = {"path": str(self._images), "port": 0}
            kind = {"kind": "SecondaryStorage", "backend": "directory", "address": LOOPBACK}
            hosts.append({"token": token, **kind, "options": options})
        servers = [f"{LOOPBACK}:{server.ports[1]}" for server in self.servers]
        state = self.directory / f"agent{number + 1}"
        self.agents.append(AgentThread({"servers": servers, "state_dir": str(state), "host": hosts}))

    def _register(self) -> str:
        image = self.directory / "image" / "small.qcow2"
        image.parent.mkdir(exist_ok=True)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M"], check=True)
        with _served(image.parent) as url:
            os_type = self.admin.list("listOsTypes", "ostype", keyword="Other Linux (64-bit)")[0]["id"]
            made = self.admin.call(
                "registerTemplate", name="small", displaytext="small", format="QCOW2", hypervisor="Simulator",
                ostypeid=os_type, zoneid=self.zone, url=f"{url}/{image.name}", ispublic=True, isfeatured=True,
            )["template"][0]["id"]  # fmt: skip

            def ready() -> bool:
                found = self.admin.list("listTemplates", "template", templatefilter="self", id=made)[0]
                if str(found.get("status", "")).startswith("Failed"):
                    raise AssertionError(str(found))
                return bool(found["isready"])

            eventually("the template is ready", ready)
        return str(made)

    @property
    def password(self) -> str:
        """The administrator's."""
        # Whichever server was first gave it.
        found = [path for server in self.servers if (path := server.directory / "admin-password").exists()]
        return found[0].read_text().strip()

    def _sign_in(self, username: str, password: str) -> Profile:
        with httpx.Client(trust_env=False, timeout=30) as browser:
            asked = {"command": "login", "username": username, "password": password, "response": "json"}
            opened = browser.post(self.servers[0].endpoint, data=asked).json()["loginresponse"]
            asked = {"command": "registerUserKeys", "id": opened["userid"], "sessionkey": opened["sessionkey"]}
            made = browser.post(self.servers[0].endpoint, data={**asked, "response": "json"}).json()
        keys = made["registeruserkeysresponse"]["userkeys"]
        endpoints = ",".join(server.endpoint for server in self.servers)
        return Profile(endpoints, keys["apikey"], keys["secretkey"])


def free_port() -> int:
    """A port of loopback that nobody listens at and that the kernel gives to nobody."""
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(_FIRST_PORT, _LAST_PORT)
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return port


@contextmanager
def _served(directory: Path) -> Iterator[str]:
    """URL under which the directory's files are served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer((LOOPBACK, 0), partial(Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
