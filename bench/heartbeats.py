"""Heartbeats of 50,000 hosts every 10 s on one server process: processor time, return after a restart, false Downs.

Two shapes. Fleet: one agent holds all hosts over one connection. Lines: one mutual-TLS connection per host, as many as
--lines says, beating so often that the server hears as many heartbeats a second as from --hosts hosts; memory and the
time of a handshake are told per connection, and extrapolated in the open. The client runs in a process of its own. The
last line is the dearer shape, as one JSON object.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import CertificateSigningRequestBuilder, Name
from sqlalchemy import func, insert, select
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from pileus.server.db.migrate import make_ready
from pileus.server.db.queries import fleet as fleets
from pileus.server.db.tables.host import host, host_capacity, host_certificate, host_stats
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Database
from pileus.server.hosts.authority import Authority
from pileus.server.hosts.first_bytes import Doorway, Reply
from pileus.wire import PROTOCOL
from pileus.wire.messages import Heartbeat, Hello, HostFacts, HostIntro, HostKind, encode

GOAL_PERCENT, GOAL_BACK_SECONDS = 50.0, 60.0
INTERVAL_SECONDS = 10.0
TOKEN = "a-one-time-secret-of-the-bench"
BEAT = encode(Heartbeat())
FRAME = bytes((0x82, 0x80 | len(BEAT), 0, 0, 0, 0)) + BEAT
"""A masked WebSocket frame (with a mask of zeros), ready to be sent: the client's own cost is not what is measured."""


@dataclass
class Cloud:
    """A server process on SQLite, and what is read of it from outside."""

    directory: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.database = Database(f"sqlite:///{self.directory / 'server' / 'pileus.db'}")
        (self.directory / "server").mkdir()
        make_ready(self.database)
        with self.database.write() as tx:
            values = {"dns1": "192.0.2.1", "internal_dns1": "192.0.2.1", "network_type": "Advanced", "token": "t"}
            self.zone = tx.insert(insert(zone).values(name="z", created_at=1, **values))

    def start(self) -> None:
        config = self.directory / "server.toml"
        config.write_text(
            f'state_dir = "{self.directory}/server"\nname = "s"\n[api]\nport = {free_port()}\n'
            f'[agents]\naddress = "127.0.0.1"\nport = {self.port}\n'
        )
        log = (self.directory / "server.log").open("ab")
        self.process = subprocess.Popen([sys.executable, "-m", "pileus.server", "--config", str(config)], stderr=log)

    def stop(self) -> None:
        if self.process is not None:
            end(self.process)
            self.process = None

    def add_hosts(self, count: int, *, wanted: bool) -> list[tuple[int, str]]:
        with self.database.write() as tx:
            mark = "sim" if wanted else "line"
            rows = {
                "kind": "Routing", "state": "Connecting", "zone_id": self.zone, "hypervisor": "Simulator",
                "created_at": tx.now, "wanted": 1 if wanted else None,
            }  # fmt: skip
            tx.execute(insert(host), [{"name": f"{mark}-{number}", **rows} for number in range(count)])
            made = tx.all(select(host.c.id, host.c.uuid).where(host.c.name.like(f"{mark}-%")).order_by(host.c.id))
            tx.execute(insert(host_capacity), [{"host_id": row["id"]} for row in made])
            tx.execute(insert(host_stats), [{"host_id": row["id"], "taken_at": tx.now} for row in made])
        return [(row["id"], row["uuid"]) for row in made]

    def held(self) -> int:
        """Hosts that are Up and have a line."""
        with self.database.read() as tx:
            up = select(func.count()).select_from(host).where(host.c.state == "Up", host.c.server == "s")
            return int(tx.scalar(up))

    def down(self) -> int:
        with self.database.read() as tx:
            return int(tx.scalar(select(func.count()).select_from(host).where(host.c.state == "Down")))

    def until_held(self, count: int, *, seconds: float) -> float:
        """Seconds until all of them are; raises when it takes too long."""
        began = time.monotonic()
        while self.held() < count:
            if time.monotonic() - began > seconds:
                raise SystemExit(f"only {self.held()} of {count} hosts came within {seconds} s")
            time.sleep(0.25)
        return time.monotonic() - began

    def cpu(self) -> float:
        assert self.process is not None
        return cpu_of(self.process.pid)

    def memory(self) -> int:
        assert self.process is not None
        return memory_of(self.process.pid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=50_000)
    parser.add_argument("--lines", type=int, default=3000, help="connections of the second shape")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long heartbeats are watched")
    parser.add_argument("--shape", choices=["fleet", "lines", "both"], default="both")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--plain", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        return asyncio.run(Client(json.loads(given.client)).run())
    if given.plain:
        return asyncio.run(serve_plainly(given.plain))
    results = []
    if given.shape != "lines":
        with cloud() as there:
            results.append(fleet_shape(there, given))
    if given.shape != "fleet":
        with cloud() as there:
            results.append(lines_shape(there, given))
    percent = max(result["percent"] for result in results)
    ok = percent <= GOAL_PERCENT and all(result["ok"] for result in results)
    line = {"name": "heartbeats", "value": round(percent, 1), "unit": "%", "goal": GOAL_PERCENT, "ok": ok}
    print(json.dumps(line))
    return 0


def fleet_shape(there: Cloud, given: argparse.Namespace) -> dict[str, Any]:
    """All hosts in one agent."""
    there.add_hosts(given.hosts, wanted=True)
    with there.database.write() as tx:
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        fleets.add(tx, name="bench", token_hash=digest, token_expires_at=tx.now + 3_600_000)
    there.start()
    config = there.directory / "fleet.toml"
    config.write_text(
        f'servers = ["127.0.0.1:{there.port}"]\nstate_dir = "{there.directory}/fleet"\n[fleet]\ntoken = "{TOKEN}"\n'
    )
    (there.directory / "fleet").mkdir()
    log = (there.directory / "fleet.log").open("ab")
    agent = subprocess.Popen([sys.executable, "-m", "pileus.agent", "--config", str(config)], stderr=log)
    try:
        first = there.until_held(given.hosts, seconds=120)
        empty = memory_of(agent.pid)
        tell("fleet: hosts made and introduced", f"{given.hosts} in {first:.1f} s")
        tell("fleet: resident memory of the agent", f"{empty / 2**20:.0f} MiB for {given.hosts} hosts")
        time.sleep(5)
        percent = watched(there, given.seconds)
        tell("fleet: server, share of a core", f"{percent:.1f} %")
        tell("fleet: server, resident memory", f"{there.memory() / 2**20:.0f} MiB")
        back, down = restarted(there, given.hosts)
        tell("fleet: all back after a restart of the server", f"{back:.1f} s (goal {GOAL_BACK_SECONDS:.0f} s)")
        tell("fleet: false Down", str(down))
    finally:
        end(agent)
    return {"percent": percent, "ok": back < GOAL_BACK_SECONDS and down == 0}


def lines_shape(there: Cloud, given: argparse.Namespace) -> dict[str, Any]:
    """A connection per host."""
    made = there.add_hosts(given.lines, wanted=False)
    certify(there, made)
    interval = INTERVAL_SECONDS * given.lines / given.hosts
    there.start()
    time.sleep(3)
    idle, before = there.memory(), there.cpu()
    order = {"port": there.port, "directory": str(there.directory / "lines"), "lines": given.lines}
    command = [sys.executable, __file__, "--client"]
    client = subprocess.Popen([*command, json.dumps({**order, "interval": interval})])
    try:
        first = there.until_held(given.lines, seconds=240)
        connect_ms = 1000 * (there.cpu() - before) / given.lines
        each = (there.memory() - idle) / given.lines
        tell("lines: connected", f"{given.lines} in {first:.1f} s, {connect_ms:.2f} ms of the server's core each")
        tell("lines: server memory per connection", f"{each / 1024:.0f} KiB")
        tell("lines: extrapolated to all hosts", f"{each * given.hosts / 2**30:.1f} GiB of memory")
        time.sleep(3)
        base = cpu_of(client.pid)
        percent = watched(there, given.seconds)
        used = 100 * (cpu_of(client.pid) - base) / given.seconds
        rate = given.lines / interval
        tell(f"lines: server, share of a core at {rate:.0f} heartbeats/s", f"{percent:.1f} % (client {used:.0f} %)")
        spent = there.cpu()
        back, down = restarted(there, given.lines)
        after = 1000 * there.cpu() / given.lines
        tell("lines: all back after a restart of the server", f"{back:.1f} s")
        whole = after * given.hosts / 1000
        fits = whole < GOAL_BACK_SECONDS
        tell("lines: extrapolated return of all hosts", f"{whole:.0f} s of one core {'' if fits else '(missed)'}")
        tell("lines: false Down", str(down))
        del spent
    finally:
        end(client)
    plain = plainly(given.lines, interval, given.seconds, there)
    tell("lines: the same without TLS and without a cloud behind it", f"{plain:.1f} %")
    return {"percent": percent, "ok": back < GOAL_BACK_SECONDS and fits and down == 0}


def watched(there: Cloud, seconds: float) -> float:
    """Percent of a core that the server uses."""
    before, began = there.cpu(), time.monotonic()
    time.sleep(seconds)
    return 100 * (there.cpu() - before) / (time.monotonic() - began)


def restarted(there: Cloud, count: int) -> tuple[float, int]:
    """Seconds from the start of the server until all hosts are back, and how many were called Down."""
    there.stop()
    there.start()
    back = there.until_held(count, seconds=240)
    return back, there.down()


def certify(there: Cloud, made: list[tuple[int, str]]) -> None:
    """A certificate for each host; all have one key, which costs the server nothing less."""
    directory = there.directory / "lines"
    directory.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (directory / "key.pem").write_bytes(pem)
    request = CertificateSigningRequestBuilder().subject_name(Name([])).sign(key, hashes.SHA256())
    text = request.public_bytes(serialization.Encoding.PEM).decode()
    authority = Authority.load(there.database)
    (directory / "ca.pem").write_text(authority.ca_pem)
    rows = []
    for number, (host_id, uuid) in enumerate(made):
        issued = authority.issue(text, [uuid], serving=False)
        (directory / f"{number}.pem").write_text(issued.certificate_pem)
        row = {"serial": issued.serial, "host_id": host_id, "issued_at": 1, "expires_at": issued.expires_at}
        rows.append(row)
    (directory / "uuids").write_text("\n".join(uuid for _, uuid in made))
    with there.database.write() as tx:
        tx.execute(insert(host_certificate), rows)


class Client:
    """Many agents that do nothing but beat."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.directory, self.port = Path(order["directory"]), order["port"]
        self.interval, self.plain = order["interval"], order.get("plain", False)
        self.uuids = [""] * order["lines"]
        if not self.plain:
            self.uuids = (self.directory / "uuids").read_text().split()
        self.open: dict[int, asyncio.WriteTransport] = {}
        self.door = asyncio.Semaphore(64)

    async def run(self) -> int:
        async with asyncio.TaskGroup() as group:
            for number in range(len(self.uuids)):
                group.create_task(self.keep(number))
            group.create_task(self.beat())
        return 0

    async def beat(self) -> None:
        """Spread over the interval, as those of independent agents are."""
        tick, turn = 0.01, 0.0
        numbers = len(self.uuids)
        began, sent = time.monotonic(), 0
        while True:
            await asyncio.sleep(tick)
            turn = (time.monotonic() - began) / self.interval * numbers
            for number in range(sent, int(turn)):
                line = self.open.get(number % numbers)
                if line is not None:
                    line.write(FRAME)
            sent = int(turn)

    async def keep(self, number: int) -> None:
        context = None if self.plain else self.context(number)
        facts = HostFacts("Simulator", "1", "127.0.0.1", cpus=2, cpu_mhz=1000, memory_bytes=1 << 30)
        hello = encode(Hello(PROTOCOL, "1", (HostIntro(self.uuids[number], HostKind.ROUTING, facts),)))
        failures = 0
        scheme = "ws" if self.plain else "wss"
        while True:
            with contextlib.suppress(Exception):
                async with contextlib.AsyncExitStack() as stack:
                    async with self.door:
                        url = f"{scheme}://127.0.0.1:{self.port}/agent"
                        line = await stack.enter_async_context(
                            connect(url, ssl=context, compression=None, proxy=None, ping_interval=None, open_timeout=30)
                        )
                    await line.send(hello)
                    await line.recv()
                    failures = 0
                    self.open[number] = line.transport
                    async for _ in line:
                        pass
            self.open.pop(number, None)
            # As agents do: full jitter over an interval that doubles.
            await asyncio.sleep(min(60.0, 0.5 * 2**failures) * int.from_bytes(os.urandom(2), "big") / 65536)
            failures += 1

    def context(self, number: int) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(self.directory / "ca.pem")
        context.load_cert_chain(self.directory / f"{number}.pem", self.directory / "key.pem")
        return context


async def serve_plainly(port: int) -> int:
    """The same frames through the same connection class, without TLS and without anything behind it."""

    async def posted(_: object) -> Reply:
        return Reply(HTTPStatus.NOT_FOUND)

    doorway = Doorway(posted, most=100_000)

    async def session(connection: Any) -> None:
        await connection.recv()
        doorway.leave(connection)
        await connection.send(b"")
        connection.beat = lambda: True
        async for _ in connection:
            pass

    settings = {"compression": None, "ping_interval": None, "max_size": None}
    async with serve(session, "127.0.0.1", port, create_connection=doorway.connection(), backlog=1024, **settings):
        await asyncio.Event().wait()
    return 0


def plainly(lines: int, interval: float, seconds: float, there: Cloud) -> float:
    port = free_port()
    server = subprocess.Popen([sys.executable, __file__, "--plain", str(port)])
    order = {"port": port, "directory": str(there.directory), "lines": lines, "interval": interval, "plain": True}
    client = subprocess.Popen([sys.executable, __file__, "--client", json.dumps(order)])
    try:
        time.sleep(10 + lines / 500)
        before = cpu_of(server.pid)
        time.sleep(seconds)
        return 100 * (cpu_of(server.pid) - before) / seconds
    finally:
        end(client)
        end(server)


@contextlib.contextmanager
def cloud() -> Iterator[Cloud]:
    with tempfile.TemporaryDirectory() as directory:
        there = Cloud(Path(directory), free_port())
        try:
            yield there
        except BaseException:
            for log in there.directory.glob("*.log"):
                print(log, log.read_text()[-2000:], file=sys.stderr)
            raise
        finally:
            there.stop()
            there.database.dispose()


def cpu_of(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def tell(claim: str, measured: str) -> None:
    print(f"{claim}: {measured}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
