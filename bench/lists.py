"""Pages of lists in full clouds: over HTTP from a real server, and in process from the parsed request to the bytes.

Two clouds on each database: one with 25,000 of everything that the hot lists show, and one with a million guests among
a million removed ones. `lists.py [sqlite] [postgresql] [--only full|million] [--size GUESTS]`. The time of a server is
what it says itself of each call: from the start of its work to the bytes, sockets aside. The last line, one JSON
object, is the whole.
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
from sqlalchemy import select, text

from pileus.server.api.dispatch import Dispatcher
from pileus.server.api.request import Request
from pileus.server.api.signing import sign
from pileus.server.db.migrate import newest
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.vm import vm
from pileus.testing.builders import root
from pileus.testing.client import Client
from pileus.testing.database import using
from pileus.testing.fill import Shape, fill
from pileus.testing.world import World

FULL = Shape(
    domains=25_000, accounts=25_000, networks=25_000, hosts=25_000, vms=25_000, volumes=50_000, events=25_000
)  # fmt: skip
MILLION = 1_000_000
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
RANDOM_PAGES = 1000
TURNS = 100
CHANGES = 50
GOAL_MEAN_SECONDS, GOAL_P99_MS, GOAL_FLAT = 0.1, 10.0, 1.25

Claim = dict[str, Any]


def main() -> int:
    """Measure what is asked for; the last line is the whole."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("databases", nargs="*", default=["sqlite", "postgresql"])
    words.add_argument("--only", choices=("full", "million"))
    words.add_argument("--size", type=int, default=MILLION, help="guests, and as many removed ones")
    asked = words.parse_args()
    # The dispatcher tells of every call; a real server writes that too, so it stays part of what is measured.
    structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=Path(os.devnull).open("w")))  # noqa: SIM115
    claims: list[Claim] = []
    worst = 0.0
    for kind in asked.databases:
        if asked.only != "million":
            worst = max(worst, _full(kind, claims))
        if asked.only != "full":
            worst = max(worst, _million(kind, asked.size, claims))
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


def _million(kind: str, size: int, claims: list[Claim]) -> float:
    """Pages of guests: flat in their number, in the number of the page, and in removed guests. The mean over HTTP."""
    shape = Shape(domains=100, accounts=1000, networks=25_000, hosts=25_000, vms=size, removed_vms=size)
    with filled(kind, FEW) as (small, _), filled(kind, shape) as (world, directory):
        _pages_in_process(kind, small, world, size, claims)
        return _pages_of_a_server(kind, world, directory, size, claims)


def _pages_in_process(kind: str, small: World, world: World, size: int, claims: list[Claim]) -> None:
    """What a page costs, wherever it lies, in a large cloud and a small one, and after a change."""
    chance, last = random.Random(1), size // PAGE
    few, local = Local(small, Client(small.db, root()).keys), Local(world, Client(world.db, root()).keys)
    spent = time.process_time()
    body = json.loads(local.page("listVirtualMachines", 1))["listvirtualmachinesresponse"]
    say(claims, claim(f"{kind}_million_first_call_cpu", 1000 * (time.process_time() - spent), "ms"))
    assert body["count"] == size, body["count"]
    few.page("listVirtualMachines", 1)
    cpu: list[float] = []
    timed(lambda: local.page("listVirtualMachines", chance.randrange(last) + 1), RANDOM_PAGES, cpu)
    say(claims, claim(f"{kind}_million_page_cpu_median", 1000 * statistics.median(cpu), "ms"))
    say(claims, claim(f"{kind}_million_page_cpu_p99", 1000 * percentile(cpu, 99), "ms"))
    one, other = in_turns(
        lambda: few.page("listVirtualMachines", chance.randrange(FEW.vms // PAGE) + 1),
        lambda: local.page("listVirtualMachines", chance.randrange(last) + 1),
    )
    ratio = statistics.median(other) / statistics.median(one)
    say(claims, claim(f"{kind}_million_to_ten_thousand", ratio, "x", GOAL_FLAT))
    one, other = in_turns(lambda: local.page("listVirtualMachines", 1), lambda: local.page("listVirtualMachines", last))
    ratio = statistics.median(other) / statistics.median(one)
    say(claims, claim(f"{kind}_last_page_to_first", ratio, "x", GOAL_FLAT))
    cpu.clear()
    for number in range(CHANGES):
        with world.db.write() as tx:
            guests = select(vm.c.id).where(vm.c.live == 1, vm.c.id > chance.randrange(2 * size)).order_by(vm.c.id)
            vms.remove(tx, tx.scalar(guests.limit(1)))
        spent = time.process_time()
        body = json.loads(local.page("listVirtualMachines", chance.randrange(last) + 1))["listvirtualmachinesresponse"]
        cpu.append(time.process_time() - spent)
        assert body["count"] == size - number - 1, body["count"]
    say(claims, claim(f"{kind}_million_page_after_a_change_cpu_median", 1000 * statistics.median(cpu), "ms"))


def _pages_of_a_server(kind: str, world: World, directory: Path, size: int, claims: list[Claim]) -> float:
    """Pages at random over HTTP: what the server says of them, and what whoever waits for them sees."""
    chance, last = random.Random(2), size // PAGE - 1
    keys = Client(world.db, root()).keys
    with server(directory, world) as port:
        remote = Remote(port, keys)
        began = time.perf_counter()
        remote.page("listVirtualMachines", 1)
        say(claims, claim(f"{kind}_million_first_call_http", 1000 * (time.perf_counter() - began), "ms"))
        wall = timed(lambda: remote.page("listVirtualMachines", chance.randrange(last) + 1), RANDOM_PAGES)
    told = told_by_server(directory, "listVirtualMachines")[-RANDOM_PAGES:]
    assert len(told) == RANDOM_PAGES, len(told)
    say(claims, claim(f"{kind}_million_server_median", statistics.median(told), "ms"))
    say(claims, claim(f"{kind}_million_server_p99", percentile(told, 99), "ms", GOAL_P99_MS))
    say(claims, claim(f"{kind}_million_http_mean", statistics.mean(wall), "s", GOAL_MEAN_SECONDS))
    say(claims, claim(f"{kind}_million_http_p99", 1000 * percentile(wall, 99), "ms"))
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


def in_turns(one: Callable[[], Any], other: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Seconds of each of two works that take turns, so that other load meets both alike."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
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


def told_by_server(directory: Path, command: str) -> list[float]:
    """Milliseconds of each call of a command, as the server's log has them."""
    lines = (directory / "server.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if '"call"' in line]
    return [entry["milliseconds"] for entry in entries if entry.get("command") == command]


def claim(name: str, value: float, unit: str, goal: float | None = None) -> Claim:
    """One number and whether it is good enough."""
    return {"name": name, "value": round(value, 4), "unit": unit, "goal": goal, "ok": goal is None or value <= goal}


def say(claims: list[Claim], one: Claim) -> None:
    """Print a claim and keep it."""
    claims.append(one)
    print(json.dumps(one), flush=True)


if __name__ == "__main__":
    sys.exit(main())
