"""Deploys per second to Running: real servers, simulated hosts on the real wire, every commit synced to disk.

`--database sqlite|postgresql`, `--servers N` (a farm needs PostgreSQL). Signed calls keep `--in-flight` deploys under
way; a second run with one at a time gives the latencies of a quiet cloud. Everything it starts ends with it.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploys_cloud import Cloud, Keys, cpu_seconds, running
from sqlalchemy import func, select

from pileus.server.api.signing import sign
from pileus.server.db.tables.job import job
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume

GOAL_PER_SECOND = 430.0
GOAL_COMMAND_MS = 5.0
LOOK_SECONDS = 0.25
"""How often it is asked how many guests run."""
WARM_SECONDS = 5.0
PATIENCE_SECONDS = 120.0


@dataclass
class Line:
    """One HTTP connection to a server, used for one call after the other."""

    port: int
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def call(self, keys: Keys, command: str, **parameters: str) -> dict[str, Any]:
        """The body of an answer, without its envelope. RuntimeError when it is an error."""
        if self.writer is None or self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        query = _signed(keys, {"command": command, "response": "json", **parameters})
        self.writer.write(f"GET /client/api?{query} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        (body,) = json.loads(await self.reader.readexactly(int(length.partition(b":")[2]))).values()
        if "errorcode" in body:
            raise RuntimeError(f"{command}: {body['errorcode']} {body['errortext']}")
        return dict(body)


@dataclass
class Load:
    """Deploys that were asked for. `accepted` has the instant of each answer (ns) by the guest's UUID."""

    cloud: Cloud
    in_flight: int
    accepted: dict[str, int] = field(default_factory=dict)
    asked: int = 0
    running: int = 0
    looks: list[tuple[float, int]] = field(default_factory=list)
    call_ms: list[float] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        """Deploy for so long, then wait until every guest runs."""
        base = await self._count()
        end_at = time.monotonic() + seconds
        room = asyncio.Semaphore(self.in_flight)
        watcher = asyncio.create_task(self._watch(base, room))
        callers = [asyncio.create_task(self._deploy(number, room, end_at)) for number in range(min(self.in_flight, 16))]
        await asyncio.gather(*callers)
        await asyncio.wait_for(watcher, PATIENCE_SECONDS)

    async def _deploy(self, number: int, room: asyncio.Semaphore, end_at: float) -> None:
        ports, site = self.cloud.api_ports, self.cloud.site
        line = Line(ports[number % len(ports)])
        wanted = {"zoneid": site.zone, "serviceofferingid": site.offering, "templateid": site.template}
        while True:
            await room.acquire()
            if time.monotonic() >= end_at:
                room.release()
                return
            keys = site.accounts[self.asked % len(site.accounts)]
            self.asked += 1
            began = time.perf_counter()
            answer = await line.call(keys, "deployVirtualMachine", **wanted)
            self.accepted[answer["id"]] = time.time_ns()
            self.call_ms.append((time.perf_counter() - began) * 1000)

    async def _watch(self, base: int, room: asyncio.Semaphore) -> None:
        """Let as many more be asked for as have come to run; ends when all that were asked for run."""
        done = 0
        pause = LOOK_SECONDS if self.in_flight > 1 else 0.02
        while True:
            await asyncio.sleep(pause)
            now = await self._count() - base
            self.looks.append((time.monotonic(), now))
            for _ in range(now - done):
                room.release()
            done = now
            if done and done == self.asked and len(self.accepted) == self.asked and room._value == self.in_flight:
                self.running = done
                return

    async def _count(self) -> int:
        return await asyncio.to_thread(running_guests, self.cloud)

    def per_second(self, seconds: float) -> float:
        """Over the time the load stood, without its first and last seconds."""
        began = self.looks[0][0] + min(WARM_SECONDS, seconds / 4)
        steady = [look for look in self.looks if began <= look[0] <= self.looks[0][0] + seconds]
        (first_at, first), (last_at, last) = steady[0], steady[-1]
        return (last - first) / (last_at - first_at)


def running_guests(cloud: Cloud) -> int:
    """How many guests run, asked of the database beside the servers: callers that poll are not what is measured."""
    with cloud.database.read() as tx:
        of_users = (vm.c.live == 1, vm.c.kind == "User", vm.c.state == "Running")
        return int(tx.scalar(select(func.count()).select_from(vm).where(*of_users)))


def main() -> int:
    """Measure one setting; the last line is the claim."""
    given = _arguments()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="pileus-bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        with running(
            directory,
            kind=given.database,
            servers=given.servers,
            workers=given.workers,
            accounts=given.accounts,
            hosts=given.hosts,
        ) as cloud:
            ok = asyncio.run(_measure(cloud, given))
        if given.keep_log:
            for log in directory.glob("*.log"):
                Path(given.keep_log, log.name).write_bytes(log.read_bytes())
    return 0 if ok else 1


async def _measure(cloud: Cloud, given: argparse.Namespace) -> bool:
    _say("bringing up the networks")
    warm = Load(cloud, len(cloud.site.accounts))
    await _each_network(cloud, warm)
    light = Load(cloud, 1)
    await light.run(given.light_seconds)
    before = {process: cpu_seconds(process) for process in cloud.processes}
    full = Load(cloud, given.in_flight)
    load_average = os.getloadavg()[0]
    await full.run(given.seconds)
    spent = {process.name: cpu_seconds(process) - before[process] for process in cloud.processes}
    await _check(cloud, full)
    await asyncio.to_thread(_end_hosts, cloud)
    arrived: Mapping[str, int] = json.loads(cloud.arrived.read_text())
    rate = full.per_second(given.seconds)
    report = {
        "database": given.database,
        "servers": given.servers,
        "deploys": full.running,
        "load_average_before": round(load_average, 1),
        "cpu_seconds_per_1000": {name: round(cpu / full.running * 1000, 2) for name, cpu in spent.items()},
        "call_ms": _spread(full.call_ms),
        "command_ms_full": _spread(_to_command(cloud, full, arrived)),
        "call_ms_light": _spread(light.call_ms),
        "command_ms_light": _spread(_to_command(cloud, light, arrived)),
        "command_goal_ms": GOAL_COMMAND_MS,
    }
    print(json.dumps(report))
    ok = rate >= GOAL_PER_SECOND
    print(json.dumps({"name": "deploys", "value": round(rate, 1), "unit": "1/s", "goal": GOAL_PER_SECOND, "ok": ok}))
    return ok


async def _each_network(cloud: Cloud, load: Load) -> None:
    """One guest per account: its network is implemented and its router runs."""
    line, site = Line(cloud.api_ports[0]), cloud.site
    wanted = {"zoneid": site.zone, "serviceofferingid": site.offering, "templateid": site.template}
    for keys in site.accounts:
        await line.call(keys, "deployVirtualMachine", **wanted)
    until = time.monotonic() + PATIENCE_SECONDS
    while await asyncio.to_thread(running_guests, cloud) < len(site.accounts):
        if time.monotonic() > until:
            raise RuntimeError("the networks did not come up")
        await asyncio.sleep(0.2)


async def _check(cloud: Cloud, load: Load) -> None:
    """Every deploy that was accepted runs, as the API tells it, and no job failed."""
    counted = await Line(cloud.api_ports[0]).call(
        cloud.site.admin, "listVirtualMachines", listall="true", state="Running", page="1", pagesize="1"
    )
    with cloud.database.read() as tx:
        failed = tx.scalar(select(func.count()).select_from(job).where(job.c.phase.in_(("failed", "stuck"))))
        states = tx.all(select(vm.c.uuid, vm.c.state).where(vm.c.live == 1, vm.c.kind == "User"))
    missing = set(load.accepted) - {row["uuid"] for row in states if row["state"] == "Running"}
    if failed or missing or int(counted["count"]) != len(states):
        raise RuntimeError(f"{failed} jobs failed, {len(missing)} guests do not run, {counted['count']} are listed")


def _to_command(cloud: Cloud, load: Load, arrived: Mapping[str, int]) -> list[float]:
    """Milliseconds from each answer to the arrival of the first command at a host."""
    with cloud.database.read() as tx:
        rows = tx.all(select(vm.c.uuid, volume.c.path).join(volume, volume.c.vm_id == vm.c.id))
    paths = {row["uuid"]: row["path"] for row in rows}
    return [(arrived[paths[uuid]] - at) / 1e6 for uuid, at in load.accepted.items()]


def _end_hosts(cloud: Cloud) -> None:
    cloud.hosts.terminate()
    cloud.hosts.wait(30)


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    if len(values) == 1:
        return {"p50": round(values[0], 1), "p99": round(values[0], 1)}
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"p50": round(cuts[49], 1), "p99": round(cuts[98], 1)}


def _signed(keys: Keys, parameters: Mapping[str, str]) -> str:
    signed = {**parameters, "apikey": keys.api_key}
    return urllib.parse.urlencode({**signed, "signature": sign(signed, keys.secret)}, quote_via=urllib.parse.quote)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--servers", type=int, default=1)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--light-seconds", type=float, default=5.0)
    parser.add_argument("--in-flight", type=int, default=128)
    parser.add_argument("--accounts", type=int, default=20)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--keep-log", default="", help="directory for the logs of servers and hosts")
    given = parser.parse_args()
    if given.servers > 1 and given.database == "sqlite":
        parser.error("SQLite serves one server")
    return given


if __name__ == "__main__":
    sys.exit(main())
