"""A whole cloud in one thread: database, fake clock, engine, simulated hosts. `settle()` runs it until it is quiet.

Nothing happens behind a test's back: jobs, deliveries to hosts, answers and reconcilers run only inside `settle`, in
one order that is the same every time.
"""

import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import RowMapping, func, select

import pileus.server.reconcilers
import pileus.server.workflows
from pileus.agent.backends.simulator import AnswerLost, HostSilent, SimulatedHosts
from pileus.server.db.tables.host import host, host_operation
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database, Tx
from pileus.server.hosts import liveness, operations
from pileus.server.hosts.callbacks import Callbacks
from pileus.server.jobs import reconciler
from pileus.server.jobs.engine import Engine, Hooks
from pileus.server.jobs.plan import Step
from pileus.server.jobs.plan import steps as registered_steps
from pileus.server.jobs.submit import JobRef, wake
from pileus.server.services import host as host_service
from pileus.server.services import vm_sync
from pileus.server.workflows.ask import answered
from pileus.testing.builders import Builders
from pileus.testing.clock import FakeClock
from pileus.testing.database import copied_database, fresh_database
from pileus.testing.left import Left, assert_consistent, assert_quiet, left_in
from pileus.wire.messages import Answer, Happened, VmChange

SETTLE_SECONDS = 6 * 3600.0
"""How much fake time a settle may take before it is said never to end."""

SERVER = "world"
"""The management server that there is."""

TURNS = 20_000
"""How many jobs, deliveries and reconcilers a settle may run."""


class NeverQuiet(AssertionError):
    """The world went on for hours: something waits for what never comes, or two things undo each other."""


class JobFailed(AssertionError):
    """A job that had to succeed did not."""


class World(Builders):
    """See the module. Open one with `World.open()`; builders make rows (`world.zone()`, `world.host()`)."""

    def __init__(self, db: Database, clock: FakeClock, *, like: "World | None" = None) -> None:
        super().__init__()
        load_registered()
        self.db = db
        self.clock = clock
        if like is None:
            self.hosts = SimulatedHosts(changed=self._changed)
        else:
            self.hosts = like.hosts.copied(changed=self._changed)
            self.stores = {host_id: self.hosts.stores[self.uuid(host, host_id)] for host_id in like.stores}
            self._made = like._made
        self.hooks = Hooks()
        self.steps: Mapping[str, Step] = registered_steps
        """What the engine looks steps up in; the harness puts its own view here."""
        self.fused = True
        """Whether engines run consecutive steps as one transaction."""
        self.engine = self.new_engine()
        self.changes: list[tuple[str, str, str, int, VmChange]] = []
        """What guests did by themselves: host UUID, name, UUID, epoch, change."""
        self.callbacks = Callbacks(on_answer=answered)
        """What the server does when hosts answer or guests change: the composition root's, unless a test says so."""
        self.intercept: Callable[[operations.Waiting, Answer], list[Answer]] | None = None
        """Given each answer of a host, returns what arrives in its place: nothing, another, the same twice."""
        self.instead: Callable[[operations.Waiting], Answer | None] = lambda waiting: None
        """An answer that is given in place of delivering the operation."""
        self.on_waiting: Callable[[list[operations.Waiting]], None] = lambda waiting: None
        """Told, before each delivery, of every operation that waits, oldest first."""
        self.refuses_delivery: Callable[[operations.Waiting], bool] = lambda waiting: False
        """Operations that get lost on their way to the host."""
        with db.write() as tx:
            reconciler.ensure_all(tx, ran_at=tx.now)

    @classmethod
    @contextmanager
    def open(cls, *, clock: FakeClock | None = None) -> Iterator["World"]:
        """A world on a fresh, seeded database."""
        time = clock or FakeClock()
        with fresh_database(time) as db:
            yield cls(db, time)

    @contextmanager
    def copied(self) -> Iterator["World"]:
        """A world of its own in the same state: hosts, time and SQLite database, but no hooks and no instruments."""
        time = FakeClock(self.clock.now())
        with copied_database(self.db, time) as db:
            yield type(self)(db, time, like=self)

    def new_engine(self) -> Engine:
        """An engine as another server would have it: the old one may be forgotten at any moment."""
        self.engine = Engine(self.db, owner="world", hooks=self.hooks, steps=self.steps, fused=self.fused)
        return self.engine

    # ---- running

    def settle(self, *, seconds: float = SETTLE_SECONDS) -> None:
        """Run until nothing is left to do, letting fake time pass to the next nap's end whenever that is all there is.

        Raises `NeverQuiet` when more than `seconds` would have to pass.
        """
        give_up_at = self.clock.now() + round(seconds * 1000)
        for _ in range(TURNS):
            if self.turn():
                continue
            next_at = self._next_instant()
            if next_at is None:
                return
            if next_at > give_up_at or next_at <= self.clock.now():
                raise NeverQuiet(f"jobs still wait: {self.open_jobs()}")
            self.clock.reach(next_at)
        raise NeverQuiet(f"after {TURNS} turns: {self.open_jobs()}")

    def turn(self) -> bool:
        """One job until it parks, or one delivery, or one triggered reconciler. False when there is none of them."""
        return self.engine.run_one() or self.deliver_one() or self.reconnect_one() or self._reconcile_one()

    def deliver_one(self) -> bool:
        """Deliver the oldest operation whose host can be reached, and store what it answers."""
        with self.db.read() as tx:
            uuids = {row["id"]: row["uuid"] for row in tx.all(select(host.c.id, host.c.uuid))}
            waiting = operations.waiting(tx, uuids)
        self.on_waiting(waiting)
        stuck: set[tuple[int, str]] = set()
        for order in waiting:
            # First in, first out: what lies behind a lost delivery in the same queue is not delivered either.
            if (order.host_id, order.queue) in stuck:
                continue
            if self.refuses_delivery(order):
                stuck.add((order.host_id, order.queue))
                continue
            try:
                answer = self.instead(order) or self.hosts.deliver(
                    uuids[order.host_id], order.operation_id, order.queue, order.operation
                )
            except HostSilent:
                stuck.add((order.host_id, order.queue))
                continue
            except AnswerLost:
                return True
            arrived = [answer] if self.intercept is None else self.intercept(order, answer)
            for each in arrived:
                self.store(order.host_id, each)
            if arrived:
                return True
            stuck.add((order.host_id, order.queue))
        return False

    def reconnect_one(self) -> bool:
        """End the line of one host that was asked to connect anew, and let it; what listener and agent do together."""
        with self.db.read() as tx:
            asked = select(host).where(host.c.reconnect_asked_at.is_not(None), host.c.live == 1).order_by(host.c.id)
            rows = [row for row in tx.all(asked) if row["uuid"] not in self.hosts.silent]
        if not rows:
            return False
        row = rows[0]
        intro = self.hosts.intro(row["uuid"])
        with self.db.write() as tx:
            changes = liveness.disconnected(tx, [row["id"]], row["server"] or SERVER)
            wake(tx, *(f"host:{change.host_id}" for change in changes))
        with self.db.write() as tx:
            liveness.connected(tx, {row["id"]: intro.facts}, row["server"] or SERVER)
            host_service.introduced(tx, row["id"], intro.facts)
            vm_sync.inventory(tx, row["id"], intro.holds)
        return True

    def store(self, host_id: int, answer: Answer) -> None:
        """What the listener does with an answer."""
        with self.db.write() as tx:
            stored = operations.record(tx, host_id, answer)
            if stored is not None:
                self.callbacks.on_answer(tx, stored)
        self.hosts.forget(answer.operation_id)

    def reconcile(self, *names: str) -> None:
        """Run the named reconcilers now, in this order. Raises what they raise."""
        for name in names:
            if not reconciler.run_once(self.db, name, owner="world"):
                raise AssertionError(f"reconciler {name} is leased")

    def run_due(self) -> None:
        """Run every reconciler whose period has passed, then settle. Only tests of long silence need it."""
        with self.db.read() as tx:
            names = reconciler.due(tx)
        self.reconcile(*names)
        self.settle()

    def _reconcile_one(self) -> bool:
        names = [name for name, until_at in self._triggered().items() if until_at <= self.clock.now()]
        if not names:
            return False
        self.reconcile(names[0])
        return True

    def _triggered(self) -> dict[str, int]:
        with self.db.read() as tx:
            return {name: at for name, at in reconciler.triggered(tx).items() if name in reconciler.reconcilers}

    def _next_instant(self) -> int | None:
        """When the next nap ends, or the lease of a reconciler whose server died."""
        with self.db.read() as tx:
            at = tx.scalar(select(func.min(job.c.wake_at)).where(job.c.open == 1))
        ends = list(self._triggered().values())
        return min([*ends, *([] if at is None else [int(at)])], default=None)

    def _changed(self, host_uuid: str, name: str, uuid: str, epoch: int, change: VmChange) -> None:
        self.changes.append((host_uuid, name, uuid, epoch, change))
        with self.db.write() as tx:
            host_id = tx.scalar(select(host.c.id).where(host.c.uuid == host_uuid))
            self.callbacks.on_happened(tx, host_id, Happened(host_uuid, name, uuid, epoch, change))

    # ---- jobs

    def job(self, ref: JobRef | int | str) -> RowMapping:
        """The job's row, by reference, id or UUID."""
        key = ref.id if isinstance(ref, JobRef) else ref
        with self.db.read() as tx:
            row = tx.one(select(job).where(job.c.uuid == key if isinstance(key, str) else job.c.id == key))
        if row is None:
            raise LookupError(f"no job {ref}")
        return row

    def result(self, ref: JobRef | int | str) -> dict[str, Any]:
        """Settle, and return the result of a job that must have succeeded. Raises `JobFailed`."""
        self.settle()
        row = self.job(ref)
        if row["phase"] != "succeeded":
            raise JobFailed(f"{row['workflow']} {row['phase']}: {row['error_code']} {row['error_text']}")
        found: dict[str, Any] = msgspec.json.decode(row["result"] or "{}")
        return found

    def failure(self, ref: JobRef | int | str) -> tuple[int, str]:
        """Settle, and return the error code and text of a job that must have failed with everything undone."""
        self.settle()
        row = self.job(ref)
        if row["phase"] != "failed":
            raise AssertionError(f"{row['workflow']} {row['phase']}, and was to fail")
        return int(row["error_code"]), str(row["error_text"])

    def open_jobs(self) -> list[str]:
        """What each open job stands at and waits for, for messages."""
        with self.db.read() as tx:
            rows = tx.all(select(job).where(job.c.open == 1).order_by(job.c.id))
        return [
            f"{row['workflow']}#{row['id']} {row['phase']} at {row['position']}"
            f" waits for {row['waiting_for'] or 'time'} {row['error_text'] or ''}".rstrip()
            for row in rows
        ]

    def pending_operations(self) -> list[tuple[str, str]]:
        """Id and kind of every operation that no host has answered, oldest first."""
        with self.db.read() as tx:
            rows = tx.all(
                select(host_operation.c.operation_id, host_operation.c.kind)
                .where(host_operation.c.pending == 1)
                .order_by(host_operation.c.id)
            )
        return [(row["operation_id"], row["kind"]) for row in rows]

    # ---- what must hold

    def left(self) -> Left:
        """Everything that is in use now: what a failed job must give back."""
        with self.db.read() as tx:
            return left_in(tx, self.hosts)

    def assert_nothing_left(self, before: Left | None = None) -> None:
        """The world is quiet, database and hosts agree, and sums are right; with `before`, nothing more is in use.

        Raises AssertionError naming each difference.
        """
        with self.db.read() as tx:
            assert_quiet(tx)
            assert_consistent(tx, self.hosts, self.stores)
            if before is not None:
                left_in(tx, self.hosts).assert_same(before)

    @contextmanager
    def reading(self) -> Iterator[Tx]:
        """A unit of work that only reads."""
        with self.db.read() as tx:
            yield tx


def load_registered(*, strict: bool = False) -> None:
    """Import every workflow and reconciler, which registers them. Unless `strict`, a broken one only warns."""
    for package in (pileus.server.workflows, pileus.server.reconcilers):
        for module in pkgutil.iter_modules(package.__path__):
            name = f"{package.__name__}.{module.name}"
            try:
                importlib.import_module(name)
            except ImportError as error:
                if strict:
                    raise
                warnings.warn(f"{name} cannot be imported: {error}", stacklevel=2)
