"""A farm whose servers are killed all the time: `python -m pileus.testing.killrun --database postgresql`.

Two servers on one database, simulated hosts on the real wire, a thousand deploys through whichever server lives, and
every two seconds a kill -9 of one of them, started again at once. Afterwards nothing may be stuck, lost or leaked.
The last line is one JSON object. Exit status 1 when anything is wrong.
"""

import argparse
import json
import logging
import queue
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy import RowMapping, func, select

from pileus.cli.client import ApiError, Client
from pileus.server.db.tables.job import job
from pileus.server.db.tables.vm import vm
from pileus.server.domain.job import Phase
from pileus.server.domain.vm import VmKind, VmState
from pileus.testing import servers
from pileus.testing.database import KINDS
from pileus.testing.farm import Farm, Shape
from pileus.testing.simulation.workload import Ack

ACCOUNTS = 10
CLIENTS = 8
REST_SECONDS = 150.0
"""Once nobody is killed any more, at least one job ends within this, until all have."""

_NAME_TAKEN = 431
_AGAIN_SECONDS = 0.2


@dataclass
class Verdict:
    """What a run showed. `lost` and `leaked` say what, in words."""

    database: str
    seed: int
    deploys: int = 0
    running: int = 0
    failed: int = 0
    retried: int = 0
    kills: int = 0
    stuck: int = 0
    lost: list[str] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    """Why deploys failed."""
    seconds: float = 0.0
    resumed_seconds: list[float] = field(default_factory=list)
    """After each kill: until the killed server served again."""

    @property
    def ok(self) -> bool:
        """Nothing stuck, lost or leaked."""
        return not (self.stuck or self.lost or self.leaked)

    def line(self) -> str:
        """One JSON object."""
        wrong = self.stuck + len(self.lost) + len(self.leaked)
        resumed = sorted(self.resumed_seconds)
        return json.dumps(
            {
                "name": "kill_run",
                "value": wrong,
                "unit": "stuck, lost or leaked",
                "goal": 0,
                "ok": self.ok,
                "database": self.database,
                "seed": self.seed,
                "deploys": self.deploys,
                "running": self.running,
                "failed": self.failed,
                "retried": self.retried,
                "kills": self.kills,
                "stuck": self.stuck,
                "lost": len(self.lost),
                "leaked": len(self.leaked),
                "seconds": round(self.seconds, 1),
                "restart_median_seconds": round(resumed[len(resumed) // 2], 2) if resumed else None,
            }
        )


class Killer:
    """kill -9 of a server taken by lot, every so often, started again at once; not before one serves."""

    def __init__(self, farm: Farm, dice: random.Random, *, seconds: float, most: int | None, verdict: Verdict) -> None:
        self._farm = farm
        self._dice = dice
        self._seconds = seconds
        self._most = most
        self._verdict = verdict
        self._killed_at: dict[str, float] = {}
        self._done = threading.Event()
        self.failure: BaseException | None = None
        self.enough = threading.Event()
        """Set when as many were killed as were asked for."""
        self._thread = threading.Thread(target=self._run, name="killer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Kill no more. Raises what went wrong with a start."""
        self._done.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._done.wait(self._seconds) and not self.enough.is_set():
                while not self._look() and not self._done.wait(0.05):
                    pass
                victim = self._dice.choice(self._farm.servers)
                victim.kill()
                victim.start()
                self._killed_at[victim.name] = time.monotonic()
                self._verdict.kills += 1
                if self._verdict.kills == self._most:
                    self.enough.set()
        except BaseException as error:
            self.failure = error
            self.enough.set()

    def _look(self) -> bool:
        """Whether a server serves; notes when one that was killed does again."""
        serving = [server for server in self._farm.servers if server.ready()]
        for server in serving:
            killed_at = self._killed_at.pop(server.name, None)
            if killed_at is not None:
                self._verdict.resumed_seconds.append(time.monotonic() - killed_at)
        return bool(serving)


class Customers:
    """Several clients that deploy guests with names of their own, until each deploy is acknowledged."""

    def __init__(self, farm: Farm, owners: list[dict[str, str]], *, deploys: int, verdict: Verdict) -> None:
        self._farm = farm
        self._owners = owners
        self._verdict = verdict
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(deploys):
            self._waiting.put(number)
        self._lock = threading.Lock()
        self.acks: dict[str, Ack] = {}
        """By the guest's name."""
        self.failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._run, name=f"customer-{n}", daemon=True) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        """Wait until all is ordered. Raises what the API said that it should not have said."""
        for thread in self._threads:
            thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        client = self._farm.client(*self._farm.servers)
        try:
            while self.failure is None:
                try:
                    number = self._waiting.get_nowait()
                except queue.Empty:
                    return
                ack = self._deploy(client, f"g{number}", self._owners[number % len(self._owners)])
                with self._lock:
                    self.acks[f"g{number}"] = ack
        except BaseException as error:
            self.failure = error
        finally:
            client.close()

    def _deploy(self, client: Client, name: str, owner: dict[str, str]) -> Ack:
        order = self._farm.order(name, **owner)
        doubtful = False
        while True:
            try:
                answer = client.call("deployVirtualMachine", **order)
                return Ack("deployVirtualMachine", "admin", order, str(answer["jobid"]), str(answer["id"]))
            except ApiError as error:
                if error.code == _NAME_TAKEN and doubtful:
                    # The answer to an earlier call was lost: this is its guest, and nothing is ordered twice.
                    there = self._of_name(client, name, owner)
                    if there is not None:
                        return Ack("deployVirtualMachine", "admin", order, None, there)
                elif not (error.unreached or error.code == 503):
                    raise
            doubtful = True
            with self._lock:
                self._verdict.retried += 1
            time.sleep(_AGAIN_SECONDS)

    def _of_name(self, client: Client, name: str, owner: dict[str, str]) -> str | None:
        try:
            found = client.list("listVirtualMachines", "virtualmachine", name=name, **owner)
        except ApiError:
            return None
        return next((str(each["id"]) for each in found if each["name"] == name), None)


def run(
    directory: Path,
    database: str,
    *,
    deploys: int,
    seconds: float,
    kills: int | None = None,
    seed: int | None = None,
    workers: int = 4,
) -> Verdict:
    """One run. With `kills` that many are made, however long the deploys take; else until all have ended."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    verdict = Verdict(database, seed, deploys=deploys)
    shape = Shape(agents=4, hosts_of_agent=2, workers=workers)
    with Farm(directory, _url(database, directory), shape) as farm:
        farm.start()
        farm.lay_out()
        owners = [farm.account(f"a{number}") for number in range(ACCOUNTS)]
        began = time.monotonic()
        dice = random.Random(seed)  # noqa: S311 (a run that broke is to be played again)
        killer = Killer(farm, dice, seconds=seconds, most=kills, verdict=verdict)
        customers = Customers(farm, owners, deploys=deploys, verdict=verdict)
        try:
            customers.join()
            if kills is not None:
                killer.enough.wait()
            while kills is None and not farm.at_rest():
                time.sleep(0.2)
        finally:
            killer.stop()
        last_kill_at = round(time.time() * 1000)
        for server in farm.servers:
            server.wait_ready()
        _wait_for_rest(farm)
        verdict.leaked += farm.wrong(list(customers.acks.values()), last_fault_at=last_kill_at, seconds=30)
        verdict.seconds = time.monotonic() - began
        _judge(farm, verdict, customers.acks)
    return verdict


def _wait_for_rest(farm: Farm) -> None:
    ended, until = -1, 0.0
    while not farm.at_rest():
        with farm.database.read() as tx:
            now_ended = int(tx.scalar(select(func.count()).select_from(job).where(job.c.open.is_(None))))
        if now_ended != ended:
            ended, until = now_ended, time.monotonic() + REST_SECONDS
        if time.monotonic() > until:
            return
        time.sleep(0.2)


def _judge(farm: Farm, verdict: Verdict, acks: dict[str, Ack]) -> None:
    scene = farm.scene()
    with farm.database.read() as tx:
        verdict.stuck = int(tx.scalar(select(func.count()).select_from(job).where(job.c.open == 1)))
        jobs = {row["instance_id"]: row for row in tx.all(select(job).where(job.c.command == "deployVirtualMachine"))}
        guests = {row["uuid"]: row for row in tx.all(select(vm).where(vm.c.kind == str(VmKind.USER)))}
        running = Counter(guest.name for _, guest in scene.hosts.world.guests() if guest.running)
        for name, ack in acks.items():
            verdict.lost += _lost(verdict, name, guests.get(str(ack.entity)), jobs, running)
        names = Counter(row["name"] for row in guests.values() if row["live"] is not None)
        verdict.leaked += [f"{n} guests are named {name}" for name, n in names.items() if n > 1]
        known = {ack.entity for ack in acks.values()}
        verdict.leaked += [
            f"guest {row['name']} lives and nobody was told of it"
            for uuid, row in guests.items()
            if row["live"] is not None and uuid not in known
        ]


def _lost(
    verdict: Verdict, name: str, guest: RowMapping | None, jobs: dict[int, RowMapping], running: Counter[str]
) -> list[str]:
    """What is wrong with one acknowledged deploy: it must run, or have failed for a reason."""
    if guest is None:
        return [f"{name} was acknowledged, and there is no trace of it"]
    row = jobs.get(guest["id"])
    if row is None:
        return [f"{name} has no job"]
    if row["phase"] == Phase.SUCCEEDED:
        verdict.running += 1
        if guest["state"] != VmState.RUNNING or running[guest["instance_name"]] != 1:
            return [f"{name} succeeded, is {guest['state']}, and runs on {running[guest['instance_name']]} hosts"]
        return []
    if row["phase"] == Phase.FAILED:
        verdict.failed += 1
        verdict.reasons[str(row["error_text"])] += 1
        return [] if row["error_text"] else [f"{name} failed without a reason"]
    return [f"{name} is {row['phase']} at {row['position']}"]


def _url(database: str, directory: Path) -> str:
    if database == "sqlite":
        return f"sqlite:///{directory / 'farm.db'}"
    server = servers.postgresql() if database == "postgresql" else servers.mariadb()
    name = f"pileus_farm_{random.SystemRandom().randrange(1 << 32):08x}"
    return server.create(name)


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="killrun", description="Deploy through a farm whose servers are killed.")
    parser.add_argument("--database", choices=KINDS, default="sqlite")
    parser.add_argument("--deploys", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=2.0, help="between two kills")
    parser.add_argument("--kills", type=int, help="so many; without it, until the last deploy has ended")
    parser.add_argument("--seed", type=int, help="of which server is killed when")
    parser.add_argument("--keep", type=Path, help="directory for state and logs that stay; otherwise none does")
    given = parser.parse_args(arguments)
    # Told to end, it takes its servers with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="pileus-killrun-") as scratch:
        directory = given.keep or Path(scratch)
        verdict = run(
            directory,
            given.database,
            deploys=given.deploys,
            seconds=given.seconds,
            kills=given.kills,
            seed=given.seed,
        )
    told = [*verdict.lost, *verdict.leaked]
    told += [f"{n} deploys failed: {reason}" for reason, n in verdict.reasons.most_common(20)]
    sys.stdout.write("".join(f"{text}\n" for text in told[:200]) + verdict.line() + "\n")
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
