"""Pages of lists in full clouds: over HTTP from a real server, and in process from the parsed request to the bytes.

Two clouds on each database: one with 25,000 of everything that the hot lists show, and one with a million guests among
a million removed ones. `lists.py [sqlite] [postgresql] [--only full|million]`. The last line, one JSON object, is the
whole.
"""

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import text

from pileus.server.api.dispatch import Dispatcher
from pileus.server.api.request import Request
from pileus.server.api.signing import sign
from pileus.server.db.migrate import newest
from pileus.testing.builders import root
from pileus.testing.client import Client
from pileus.testing.database import using
from pileus.testing.fill import Shape, fill
from pileus.testing.world import World

FULL = Shape(
    domains=25_000, accounts=25_000, networks=25_000, hosts=25_000, vms=25_000, volumes=50_000, events=25_000
)  # fmt: skip
MILLION = Shape(domains=100, accounts=1000, networks=25_000, hosts=25_000, vms=1_000_000, removed_vms=1_000_000)
FEW = Shape(domains=100, accounts=1000, networks=1000, hosts=1000, vms=10_000)
HOT = {
    "listAccounts": "account",
    "listDomains": "domain",
    "listHosts": "host",
    "listNetworks": "network",
    "listVirtualMachines": "virtualmachine",
    "listVolumes": "volume",
}
PAGE = 500
CALLS, WARM = 20, 2
RANDOM_PAGES = 300
GOAL_MEAN_SECONDS, GOAL_P99_MS, GOAL_FLAT = 0.1, 10.0, 1.25

Claim = dict[str, Any]


def main() -> int:
    """Measure what is asked for; the last line is the whole."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("databases", nargs="*", default=["sqlite", "postgresql"])
    words.add_argument("--only", choices=("full", "million"))
    asked = words.parse_args()
    # The dispatcher tells of every call; a real server writes that too, so it stays part of what is measured.
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=Path(os.devnull).open("w")))  # noqa: SIM115
    claims: list[Claim] = []
    worst = 0.0
    for kind in asked.databases:
        if asked.only != "million":
            worst = max(worst, _full(kind, claims))
        if asked.only != "full":
            worst = max(worst, _million(kind, claims))
    whole = claim("lists", worst, "s", GOAL_MEAN_SECONDS)
    whole["ok"] = all(one["ok"] for one in claims)
    print(json.dumps(whole))
    return 0 if whole["ok"] else 1


def _full(kind: str, claims: list[Claim]) -> float:
    """Every hot list's default page over HTTP; the worst mean, in seconds."""
    means = []
    with filled(kind, FULL) as (world, directory):
        client = Client(world.db, root())
        local = Local(world, client.keys)
        with server(directory, world) as port:
            remote = Remote(port, client.keys)
            for command, noun in HOT.items():
                body = json.loads(remote.page(command))[f"{command.lower()}response"]
                assert len(body[noun]) == PAGE, f"{command}: {len(body[noun])} of {body['count']}"
                wall = timed(lambda c=command: remote.page(c), CALLS)
                means.append(statistics.mean(wall))
                say(claims, claim(f"{kind}_{command}_http_mean", means[-1], "s", GOAL_MEAN_SECONDS))
        for command in HOT:
            inside = timed(lambda c=command: local.page(c), CALLS)
            say(claims, claim(f"{kind}_{command}_server_median", 1000 * statistics.median(inside), "ms"))
    return max(means)


def _million(kind: str, claims: list[Claim]) -> float:
    """Pages of guests: flat in their number, in the number of the page, and in removed guests. The mean over HTTP."""
    chance = random.Random(1)
    with filled(kind, FEW) as (world, _):
        few = Local(world, Client(world.db, root()).keys)
        small = timed(lambda: few.page("listVirtualMachines", chance.randrange(FEW.vms // PAGE) + 1), RANDOM_PAGES)
    with filled(kind, MILLION) as (world, directory):
        client = Client(world.db, root())
        local = Local(world, client.keys)
        began = time.monotonic()
        body = json.loads(local.page("listVirtualMachines", 1))["listvirtualmachinesresponse"]
        say(claims, claim(f"{kind}_million_first_call", 1000 * (time.monotonic() - began), "ms"))
        assert body["count"] == MILLION.vms, body["count"]
        last = MILLION.vms // PAGE
        cpu: list[float] = []
        taken = timed(lambda: local.page("listVirtualMachines", chance.randrange(last) + 1), RANDOM_PAGES, cpu)
        say(claims, claim(f"{kind}_million_page_median", 1000 * statistics.median(taken), "ms"))
        say(claims, claim(f"{kind}_million_page_p99", 1000 * percentile(taken, 99), "ms", GOAL_P99_MS))
        say(claims, claim(f"{kind}_million_page_cpu_median", 1000 * statistics.median(cpu), "ms"))
        say(claims, claim(f"{kind}_million_page_cpu_p99", 1000 * percentile(cpu, 99), "ms"))
        ratio = statistics.median(taken) / statistics.median(small)
        say(claims, claim(f"{kind}_million_to_ten_thousand", ratio, "x", GOAL_FLAT))
        first, end = in_turns(
            lambda: local.page("listVirtualMachines", 1), lambda: local.page("listVirtualMachines", last), 100
        )
        say(claims, claim(f"{kind}_last_page_to_first", statistics.median(end) / statistics.median(first), "x", 1.25))
        with server(directory, world) as port:
            remote = Remote(port, client.keys)
            wall = timed(lambda: remote.page("listVirtualMachines", chance.randrange(last) + 1), RANDOM_PAGES)
            say(claims, claim(f"{kind}_million_http_mean", statistics.mean(wall), "s", GOAL_MEAN_SECONDS))
    return statistics.mean(wall)


@contextmanager
def filled(kind: str, shape: Shape) -> Iterator[tuple[World, Path]]:
    """A world of its own with this much in it; nothing of it stays."""
    with using(kind), tempfile.TemporaryDirectory(prefix="pileus-bench-") as name, World.open() as world:
        began = time.monotonic()
        fill(world.db, world.cloud(), shape)
        with world.db.write() as tx:
            # A test's database has its tables from their definitions: a server must find the revision they are of.
            tx.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
            tx.execute(text(f"INSERT INTO alembic_version VALUES ('{newest()}')"))
        print(f"{kind}: filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
        yield world, Path(name)


class Local:
    """The dispatcher in this process, called as the root administrator with a signature."""

    def __init__(self, world: World, keys: tuple[str, str]) -> None:
        self._dispatcher = Dispatcher(world.db)
        self._keys = keys

    def page(self, command: str, number: int | None = None) -> bytes:
        """The bytes of a page."""
        answer = self._dispatcher.answer(Request("GET", "http", "192.0.2.1", {}, signed(command, number, self._keys)))
        assert answer.status == 200, answer.body
        return answer.body


class Remote:
    """A server over HTTP, one connection that is kept."""

    def __init__(self, port: int, keys: tuple[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._keys = keys

    def page(self, command: str, number: int | None = None) -> bytes:
        """The bytes of a page."""
        self._connection.request("GET", f"/client/api?{urllib.parse.urlencode(signed(command, number, self._keys))}")
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return body


def signed(command: str, number: int | None, keys: tuple[str, str]) -> dict[str, str]:
    """A call for the default page, or for one by its number."""
    sent = {"command": command, "response": "json", "apikey": keys[0]}
    if command != "listHosts" and command != "listDomains":
        sent["listall"] = "true"
    if number is not None:
        sent |= {"page": str(number), "pagesize": str(PAGE)}
    return {**sent, "signature": sign(sent, keys[1])}


def timed(work: Callable[[], Any], calls: int, cpu: list[float] | None = None) -> list[float]:
    """Seconds of each call, after a few that are not counted; with `cpu`, also the process's own."""
    for _ in range(WARM):
        work()
    taken = []
    for _ in range(calls):
        began, spent = time.perf_counter(), time.process_time()
        work()
        if cpu is not None:
            cpu.append(time.process_time() - spent)
        taken.append(time.perf_counter() - began)
    return taken


def in_turns(one: Callable[[], Any], other: Callable[[], Any], calls: int) -> tuple[list[float], list[float]]:
    """Seconds of each of two works that take turns, so that other load meets both alike."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(calls):
        for times, work in zip(taken, (one, other), strict=True):
            began = time.perf_counter()
            work()
            times.append(time.perf_counter() - began)
    return taken


def percentile(values: list[float], part: int) -> float:
    """The value that `part` of a hundred do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * part // 100)]


@contextmanager
def server(directory: Path, world: World) -> Iterator[int]:
    """A management server of its own process on the world's database; its API port."""
    config, log = directory / "server.toml", directory / "server.log"
    url = world.db.url.render_as_string(hide_password=False)
    config.write_text(
        f'name = "bench"\nstate_dir = "{directory / "server"}"\ndatabase = "{url}"\n'
        '[api]\nport = 0\n[agents]\naddress = "127.0.0.1"\nport = 0\n'
    )
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "pileus.server", "--config", str(config)], stdout=out, stderr=out
        )
    try:
        until = time.monotonic() + 60
        while not (ready := re.search(r'"api": ?"[^"]*:(\d+)"', log.read_text())):
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(log.read_text())
            time.sleep(0.05)
        yield int(ready.group(1))
    finally:
        process.terminate()
        process.wait(60)


def claim(name: str, value: float, unit: str, goal: float | None = None) -> Claim:
    """One number and whether it is good enough."""
    return {"name": name, "value": round(value, 4), "unit": unit, "goal": goal, "ok": goal is None or value <= goal}


def say(claims: list[Claim], one: Claim) -> None:
    """Print a claim and keep it."""
    claims.append(one)
    print(json.dumps(one), flush=True)


if __name__ == "__main__":
    sys.exit(main())
