"""What it costs to let a caller in and to show only what is theirs, in an empty cloud and in a very full one.

Full: 25,000 accounts in 10,000 domains, each account with a user, a guest, a disk, a network and events. SQLite, one
thread, processor time, so that other load on the machine does not count. Last line: the whole, as one JSON object.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import func, select

from pileus.server.api import signing
from pileus.server.api.dispatch import Dispatcher
from pileus.server.api.request import Request
from pileus.server.auth import visibility
from pileus.server.db.queries.user import identity_by_id
from pileus.server.db.tables.account import account, domain, users
from pileus.server.db.tables.event import event
from pileus.server.db.tables.network import network
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Database
from pileus.server.domain.vm import VmKind
from pileus.server.registered import register_all
from pileus.server.services import session
from pileus.testing.client import Client, counted_statements
from pileus.testing.fill import Shape, fill
from pileus.testing.tenancy import Tenancy
from pileus.testing.world import World

FULL = Shape(
    domains=10_000, accounts=25_000, networks=25_000, hosts=1000, vms=25_000, volumes=25_000, events=75_000
)  # fmt: skip
ROUNDS, CALLS = 11, 25
GOAL_RATIO = 1.25
"""How much more the page may cost in the full cloud: what is left is noise and one more level of each index."""
GOAL_CHECK_MS = 2.0
PAGES = (
    *("listVirtualMachines", "listVolumes", "listNetworks", "listEvents", "listAccounts", "listPublicIpAddresses"),
    *("listZones", "listServiceOfferings", "listAsyncJobs", "listResourceLimits", "listPortForwardingRules"),
)


def main() -> int:
    """Measure both clouds in turns; the last line is the whole."""
    register_all()
    with (
        World.open() as empty_world,
        World.open() as full_world,
    ):
        empty, full = Cloud(empty_world), Cloud(full_world)
        began = time.monotonic()
        fill(full_world.db, full.tenancy.cloud, FULL)
        print(f"filled in {time.monotonic() - began:.0f} s: {counts(full_world.db)}", file=sys.stderr)
        claims, ratios = [], []
        for page in PAGES:
            few, many = alternately(lambda p=page: empty.page(p), lambda p=page: full.page(p))
            ratios.append(many / few)
            claims += [_claim(f"{page}_empty", few, "ms"), _claim(f"{page}_full", many, "ms")]
            claims.append(_claim(f"{page}_ratio", many / few, "x", GOAL_RATIO))
            claims.append(_claim(f"{page}_statements", full.statements(page), "1", empty.statements(page)))
        for name in ("signature", "session", "filter", "foreign_id"):
            few, many = alternately(getattr(empty, name), getattr(full, name))
            claims += [
                _claim(f"{name}_empty", few, "ms", GOAL_CHECK_MS),
                _claim(f"{name}_full", many, "ms", GOAL_CHECK_MS),
            ]
    for claim in claims:
        print(json.dumps(claim))
    whole = _claim("auth", statistics.median(ratios), "x", GOAL_RATIO)
    whole["ok"] = all(claim["ok"] for claim in claims)
    print(json.dumps(whole))
    return 0 if whole["ok"] else 1


class Cloud:
    """One cloud with a user who has keys and a login. Each method is one thing to be measured."""

    def __init__(self, world: World) -> None:
        self.tenancy = Tenancy.settle(world)
        self.caller = self.tenancy.ours.user
        self._database = world.db
        self._keys = Client(world.db, self.caller).keys
        self._dispatcher = Dispatcher(world.db)
        with world.db.write() as tx:
            row = identity_by_id(tx, self.caller.user_id)
            assert row is not None
            self._login = session._open(tx, row)
        self._sent = self._signed("listVirtualMachines")

    def page(self, command: str) -> None:
        """A user's page of a list, from the parsed request to the rendered answer."""
        answer = self._dispatcher.answer(Request("GET", "http", "192.0.2.1", {}, self._signed(command)))
        assert answer.status == 200, answer.body

    def statements(self, command: str) -> int:
        """How many statements that page takes."""
        with counted_statements(self._database) as seen:
            self.page(command)
        return len(seen)

    def signature(self) -> None:
        """Find the key's user and check the signature."""
        with self._database.read() as tx:
            signer = session.signer(tx, self._keys[0])
            assert signer is not None
            assert signing.verify(self._sent, signer.secret, self._sent["signature"], now=tx.now)

    def session(self) -> None:
        """Find the login and check its key."""
        with self._database.read() as tx:
            caller, _ = session.check(tx, self._login.token, self._login.key)
            assert caller == self.caller

    def filter(self) -> None:
        """Work out the bounds of a list, and count what is within them."""
        with self._database.read() as tx:
            scope = visibility.scope(self.caller, tx=tx)
            where = scope.where(vm.c.account_id, vm.c.domain_id)
            of_users = (vm.c.live == 1, vm.c.kind == VmKind.USER)
            assert tx.scalar(select(func.count()).select_from(vm).where(*of_users, *where)) >= 1

    def foreign_id(self) -> None:
        """Find out that another tenant's thing is not theirs to see."""
        kind, given = next(iter(self.tenancy.theirs.things.items()))
        with self._database.read() as tx:
            try:
                visibility.resolve(tx, self.caller, kind, given, "id")
            except visibility.PermissionDenied:
                return
        raise AssertionError("a foreign id was let through")

    def _signed(self, command: str) -> dict[str, str]:
        sent = {"command": command, "response": "json", "apikey": self._keys[0], "page": "1", "pagesize": "20"}
        return {**sent, "signature": signing.sign(sent, self._keys[1])}


def alternately(one: Callable[[], None], other: Callable[[], None]) -> tuple[float, float]:
    """Milliseconds of processor time of each, medians of rounds that take turns."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for times, work in zip(taken, (one, other), strict=True):
            work()
            began = time.process_time()
            for _ in range(CALLS):
                work()
            times.append((time.process_time() - began) * 1000 / CALLS)
    return statistics.median(taken[0]), statistics.median(taken[1])


def counts(database: Database) -> dict[str, int]:
    """Rows of the tables that were filled."""
    with database.read() as tx:
        return {
            table.name: int(tx.scalar(select(func.count()).select_from(table)))
            for table in (domain, account, users, vm, volume, network, event)
        }


def _claim(name: str, value: float, unit: str, goal: float | None = None) -> dict[str, Any]:
    return {"name": name, "value": round(value, 3), "unit": unit, "goal": goal, "ok": goal is None or value <= goal}


if __name__ == "__main__":
    sys.exit(main())
