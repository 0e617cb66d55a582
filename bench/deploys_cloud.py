"""The cloud of `deploys.py`: a database filled before anything starts, then servers and hosts as processes."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, update

from pileus.agent.backends.simulator import SimulatedHosts
from pileus.server.config import change, keys
from pileus.server.db.migrate import make_ready
from pileus.server.db.tables.account import users
from pileus.server.db.tables.host import host
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template
from pileus.server.db.transaction import Database
from pileus.server.domain.caller import Caller
from pileus.server.domain.host import HostState
from pileus.server.hosts import enrolment
from pileus.server.registered import register_all
from pileus.testing.builders import Builders, root
from pileus.testing.servers import postgresql

CPUS, MEMORY_BYTES = 1024, 1 << 40
READY_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Keys:
    """Of one account's user."""

    api_key: str
    secret: str


@dataclass(frozen=True)
class Site:
    """What was filled in: UUIDs for calls, keys of the accounts and of the administrator, tokens of the hosts."""

    zone: str
    offering: str
    template: str
    accounts: tuple[Keys, ...]
    admin: Keys
    tokens: tuple[str, ...]


class Filler(Builders):
    """Rows of the bench's cloud."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.db = database
        self.hosts = SimulatedHosts()

    def fill(self, *, accounts: int, hosts: int) -> Site:
        """One zone and cluster; each account may have 4,000 guests on its network."""
        zone_id = self.zone(guest_cidr="10.1.0.0/20", vnets=(1000, 1000 + 2 * accounts))
        cluster_id = self.cluster(self.pod(zone_id, netmask="255.255.0.0", end_ip="192.168.90.250"))
        storage = self.secondary_storage(zone_id)
        host_ids = [storage, *(self.host(cluster_id, cpus=CPUS, memory=MEMORY_BYTES) for _ in range(hosts))]
        self.pool(cluster_id, capacity=1 << 50)
        self.public_range(zone_id, "198.51.100.2", "198.51.100.250")
        template_id, offering_id = self.template(zone_id), self.offering(cpu_mhz=100, ram_mib=64)
        with self.db.write() as tx:
            tokens = tuple(enrolment.create_token(tx, host_id) for host_id in host_ids)
            tx.execute(update(host).values(state=str(HostState.CONNECTING)))
        return Site(
            self.uuid(zone, zone_id),
            self.uuid(service_offering, offering_id),
            self.uuid(template, template_id),
            tuple(self._keys(self.account()) for _ in range(accounts)),
            self._keys(root()),
            tokens,
        )

    def _keys(self, caller: Caller) -> Keys:
        made = Keys(secrets.token_urlsafe(48), secrets.token_urlsafe(48))
        with self.db.write() as tx:
            mine = update(users).where(users.c.id == caller.user_id)
            tx.execute(mine.values(api_key=made.api_key, secret_key=made.secret))
        return made


@dataclass(frozen=True)
class Process:
    """A running part of the cloud."""

    name: str
    pid: int


@dataclass(frozen=True)
class Cloud:
    """A site whose processes run. `arrived` is written by the hosts when they end."""

    site: Site
    database: Database
    api_ports: tuple[int, ...]
    processes: tuple[Process, ...]
    arrived: Path
    hosts: "subprocess.Popen[bytes]"


@contextmanager
def running(directory: Path, *, kind: str, servers: int, workers: int, accounts: int, hosts: int) -> Iterator[Cloud]:
    """A cloud on a fresh database of the kind; everything is ended and the hosts are Up when it begins."""
    register_all()
    url = f"sqlite:///{directory / 'pileus.db'}"
    if kind == "postgresql":
        url = postgresql(durable=True).create("pileus_bench")
    database = Database(url)
    make_ready(database)
    site = Filler(database).fill(accounts=accounts, hosts=hosts)
    with database.write() as tx:
        # Not every allocation is drawn at random: the search begins where there is room.
        change(tx, keys.alert_wait, "600", user_id=1)
    with ExitStack() as stack:
        ready = [stack.enter_context(_server(directory, url, number, workers)) for number in range(servers)]
        plan = {
            "state_dir": str(directory / "hosts"),
            "ports": [port for _, _, port in ready],
            "tokens": site.tokens,
            "cpus": CPUS,
            "memory_bytes": MEMORY_BYTES,
            "arrived": str(directory / "arrived.json"),
        }
        agent = stack.enter_context(_hosts(directory, plan))
        _await_up(database, len(site.tokens))
        processes = [Process(f"server {n}", pid) for n, (pid, _, _) in enumerate(ready, 1)]
        processes += [Process("hosts", agent.pid), Process("load generator", os.getpid())]
        if kind == "postgresql":
            processes.append(Process("postgresql", _postmaster(database)))
        yield Cloud(site, database, tuple(api for _, api, _ in ready), tuple(processes), Path(plan["arrived"]), agent)
    database.dispose()


def cpu_seconds(process: Process) -> float:
    """User and system time so far; of PostgreSQL, of all its present backends."""
    pids = [process.pid]
    if process.name == "postgresql":
        pids += [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    return sum(_cpu(pid) for pid in pids)


def _cpu(pid: int) -> float:
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(words[11]) + int(words[12])) / _TICKS


def _postmaster(database: Database) -> int:
    with database.read() as tx:
        backend = int(tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() or 0)
    return int(Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def _server(directory: Path, url: str, number: int, workers: int) -> Iterator[tuple[int, int, int]]:
    """Pid, API port and agents' port of a server."""
    config, log = directory / f"server{number}.toml", directory / f"server{number}.log"
    config.write_text(
        f'name = "s{number}"\nstate_dir = "{directory / f"server{number}"}"\ndatabase = "{url}"\n'
        '[api]\nport = 0\n[agents]\naddress = "127.0.0.1"\nport = 0\n'
        f"[jobs]\nworkers = {workers}\n"
    )
    profile = os.environ.get("PILEUS_BENCH_PROFILE")
    program = ["-m", "pileus.server"] if not profile else [profile]
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, *program, "--config", str(config)], stdout=out, stderr=out)
    try:
        told = _ready(process, log)
        yield process.pid, int(told["api"].rpartition(":")[2]), int(told["agents"])
    finally:
        _end(process)


def _ready(process: "subprocess.Popen[bytes]", log: Path) -> dict[str, str]:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"server ready"' in line:
                told: dict[str, str] = json.loads(line)
                return told
        time.sleep(0.02)
    raise RuntimeError(f"the server is not ready: {log.read_text()[-2000:]}")


@contextmanager
def _hosts(directory: Path, plan: dict[str, object]) -> Iterator["subprocess.Popen[bytes]"]:
    config = directory / "hosts.json"
    config.write_text(json.dumps(plan))
    program = Path(__file__).with_name("deploys_hosts.py")
    with (directory / "hosts.log").open("wb") as out:
        process = subprocess.Popen([sys.executable, str(program), str(config)], stdout=out, stderr=out)
    try:
        yield process
    finally:
        _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_up(database: Database, hosts: int) -> None:
    until = time.monotonic() + READY_SECONDS
    while time.monotonic() < until:
        with database.read() as tx:
            if len(tx.all(select(host.c.id).where(host.c.state == str(HostState.UP)))) == hosts:
                return
        time.sleep(0.1)
    raise RuntimeError("not all hosts came up")
