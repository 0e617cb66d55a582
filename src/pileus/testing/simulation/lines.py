"""A world whose hosts speak over lines that break: orders and answers are on their way, late, twice or lost.

Each host has an agent with a queue in memory and a journal that survives it. What a server would do when lines come
up and end is done by the functions the listener calls. Whatever is next is chosen by the dice.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import RowMapping, Table, bindparam, func, select

from pileus.agent.backends.simulator import AnswerLost
from pileus.server.alerts.standing import AlertType, raise_alert
from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.host import host, host_operation
from pileus.server.db.tables.job import job, lease
from pileus.server.db.transaction import Tx
from pileus.server.events import job_ended, job_failed
from pileus.server.hosts import liveness, operations
from pileus.server.hosts.operations import Waiting
from pileus.server.jobs import reconciler
from pileus.server.jobs.call import Call
from pileus.server.jobs.context import Nap, TryElsewhere
from pileus.server.jobs.engine import Engine
from pileus.server.jobs.plan import Action, Step
from pileus.server.jobs.submit import wake
from pileus.server.services import host as host_service
from pileus.server.services import vm_sync
from pileus.server.workflows.ask import answered
from pileus.testing.clock import FakeClock
from pileus.testing.simulation.chronicle import Chronicle
from pileus.testing.simulation.memory import MemoryDatabase
from pileus.testing.world import World
from pileus.wire.messages import Answer, Happened, VmChange

SERVER = "simulated"
DOWN_AFTER_SECONDS = 180
HEARTBEATS_SECONDS = 30
"""How long a line may be silent before the server ends it."""
LEASE_SECONDS = 31

UNPLAYED = frozenset({"capacity"})
"""Reconcilers that would repair what the invariants are to find."""


T = TypeVar("T")


class Crash(BaseException):
    """The server ended here, as by kill -9."""


@dataclass
class Line:
    """A host, its agent, and the way to the server."""

    host_id: int
    uuid: str
    up: bool = False
    """The server holds a connection."""
    reachable: bool = True
    powered: bool = True
    silent_since: int = 0
    back_at: int = 0
    """When a host that is away comes back, in ms since the epoch."""
    delivered: set[str] = field(default_factory=set)
    inbox: list[Waiting] = field(default_factory=list)
    """Orders the agent holds and has not begun."""
    outbox: list[Answer | Happened] = field(default_factory=list)
    """On its way to the server."""

    @property
    def alive(self) -> bool:
        """Whether bytes pass."""
        return self.up and self.reachable and self.powered


class LinedWorld(World):
    """See the module. `dice` decides; `chronicle` tells."""

    dice: random.Random
    chronicle: Chronicle

    db: MemoryDatabase

    def __init__(self, db: MemoryDatabase, clock: FakeClock, *, like: World | None = None) -> None:
        self.lines: dict[int, Line] = {}
        self.crash_in = 0
        """The server ends at the commit after so many others; 0 for never."""
        self.crash_before = False
        """The commit at which it ends does not happen."""
        self.trouble = True
        """Whether servers lose leases to each other."""
        self.twice = 0.0
        """Probability that an order or answer comes twice."""
        self.given_up: set[str] = set()
        """UUIDs of hosts that were called Down at some time."""
        self._idle_at = (-1, -1)
        self._kept: dict[str, tuple[tuple[int, ...], Any]] = {}
        super().__init__(db, clock, like=like)
        self.hooks.on_end.append(job_ended)
        self.hooks.on_failed.append(job_failed)
        self.hooks.on_stuck.append(_stuck)

    def begin(self, dice: random.Random, chronicle: Chronicle) -> None:
        """From now on the dice decide. All hosts connect."""
        self.dice, self.chronicle = dice, chronicle
        self.steps = {name: self._told(step) for name, step in self.steps.items()}
        self.new_engine()
        self._count_commits()
        for line in self.all_lines():
            self._connect(line)

    def all_lines(self) -> list[Line]:
        """The lines of all hosts in use, by id."""
        known = self._looked("lines", self._hosts_in_use, host)
        for host_id, uuid in known.items():
            if host_id not in self.lines:
                self.lines[host_id] = Line(host_id, uuid)
        for host_id in [host_id for host_id in self.lines if host_id not in known]:
            # Nobody talks to it any more; whatever it was, it is no part of this cloud.
            gone = self.lines.pop(host_id)
            self.hosts.world.hosts.pop(gone.uuid, None)
            self.stores.pop(host_id, None)
        return list(self.lines.values())

    def _hosts_in_use(self, tx: Tx) -> dict[int, str]:
        return {row["id"]: row["uuid"] for row in rows.every(tx, host, live=1)}

    def _looked(self, name: str, look: Callable[[Tx], T], *tables: Table, timed: bool = False) -> T:
        """What `look` finds, looked up again only once the tables were written to (or, `timed`, time passed)."""
        state = (self.clock.now() if timed else 0, *(self.db.written[table.name] for table in tables))
        known = self._kept.get(name)
        if known is None or known[0] != state:
            with self.db.read() as tx:
                known = self._kept[name] = (state, look(tx))
        found: T = known[1]
        return found

    # ---- what may happen next

    def turn(self) -> bool:
        """One thing that can happen now, whichever. False when there is none."""
        ways: list[Callable[[], bool]] = [
            self._run_job,
            self._deliver,
            self._execute,
            self._store,
            self._reconnect,
            self._reconcile_due,
        ]
        self.dice.shuffle(ways)
        try:
            return any(way() for way in ways)
        except Crash:
            self.restart()
            return True

    def pass_time(self, seconds: float) -> None:
        """Time goes by: silent lines end, silent hosts go Down, those whose time has come are back."""
        self.clock.advance(seconds)
        self.hosts.clock.advance(seconds)
        now = self.clock.now()
        for line in self.all_lines():
            if line.up and not line.alive and now - line.silent_since > HEARTBEATS_SECONDS * 1000:
                self.end_line(line)
            if line.back_at and line.back_at <= now:
                self.come_back(line)
        speaking = [line.host_id for line in self.lines.values() if line.up]
        with self.db.write() as tx:
            lost = [host_id for host_id in liveness.not_come_back(tx, since=0) if host_id not in speaking]
            for change in liveness.lost_line(tx, lost):
                wake(tx, f"host:{change.host_id}")
            late = liveness.late(tx, server=SERVER, wait_ms=DOWN_AFTER_SECONDS * 1000, written_ms=0, since=0)
            for change in liveness.down(tx, [host_id for host_id in late if host_id not in speaking]):
                self.chronicle.note(f"host {change.host_id} is {change.state}")
                self.given_up.add(self.lines[change.host_id].uuid)
                wake(tx, f"host:{change.host_id}")

    def next_event_at(self) -> int | None:
        """When something happens by itself: a nap or lease ends, a host is back."""
        with self.db.read() as tx:
            at, held = _NEXT_WAKE.scalar(tx), _NEXT_LEASE_END.scalar(tx, now=tx.now)
        instants = [int(each) for each in (at, held) if each is not None]
        instants += [line.back_at for line in self.lines.values() if line.back_at]
        return min((each for each in instants if each > self.clock.now()), default=None)

    # ---- lines

    def end_line(self, line: Line) -> None:
        """The server notices that the line is gone. What was on its way is lost; the agent's own queue is not."""
        line.up = False
        line.outbox.clear()
        line.delivered.clear()
        with self.db.write() as tx:
            for change in liveness.disconnected(tx, [line.host_id], SERVER):
                wake(tx, f"host:{change.host_id}")
        self.chronicle.note(f"line of host {line.host_id} ends")

    def cut(self, line: Line, *, seconds: float) -> None:
        """The host is out of reach for a while; it works on."""
        line.reachable = False
        line.silent_since, line.back_at = self.clock.now(), self.clock.now() + round(seconds * 1000)
        line.outbox.clear()
        self.chronicle.note(f"host {line.host_id} is out of reach for {seconds:.0f} s")

    def kill(self, line: Line, *, seconds: float) -> None:
        """The host loses its power for a while: no guest lives, no memory is left."""
        line.powered = False
        line.silent_since, line.back_at = self.clock.now(), self.clock.now() + round(seconds * 1000)
        line.outbox.clear()
        line.inbox.clear()
        if line.uuid in self.hosts.world.hosts:
            self.hosts.backend(line.uuid).lose_power()
        self.chronicle.note(f"host {line.host_id} is without power for {seconds:.0f} s")

    def kill_agent(self, line: Line) -> None:
        """The agent ends; its journal stays, its guests run on, and another agent starts."""
        line.inbox.clear()
        self.chronicle.note(f"agent of host {line.host_id} ends")
        if line.up:
            self.end_line(line)

    def come_back(self, line: Line) -> None:
        """The host can be reached again; it will connect anew."""
        self.chronicle.note(f"host {line.host_id} is back")
        line.reachable = line.powered = True
        line.back_at = 0
        if line.up:
            self.end_line(line)

    def restart(self) -> None:
        """The server is gone with all that it held in memory; another one starts, and all lines come anew."""
        self.crash_in = 0
        self.chronicle.note("server starts again")
        for line in self.lines.values():
            line.up = False
            line.outbox.clear()
            line.delivered.clear()
        self.db.kept.clear()
        self.new_engine()
        with self.db.write() as tx:
            liveness.released(tx, SERVER)

    def _connect(self, line: Line) -> None:
        intro = self.hosts.intro(line.uuid)
        self.chronicle.note(f"host {line.host_id} connects with {[(vm.name, vm.epoch) for vm in intro.holds]}")
        with self.db.write() as tx:
            for change in liveness.connected(tx, {line.host_id: intro.facts}, SERVER):
                wake(tx, f"host:{change.host_id}")
            host_service.introduced(tx, line.host_id, intro.facts)
            vm_sync.inventory(tx, line.host_id, intro.holds)
        line.up = True
        line.outbox = list(self.hosts.late_answers(line.uuid))

    # ---- ways

    def _run_job(self) -> bool:
        state = self.clock.now(), self.db.written[job.name]
        if self._idle_at == state:
            return False
        held = self.engine.claim()
        if held is None:
            self._idle_at = state
            return False
        self.engine.run(held, stopping=self._between_steps)
        return True

    def _between_steps(self) -> bool:
        roll = self.dice.random()
        if self.trouble and roll < 0.01:
            self.chronicle.note("the server is held up longer than its leases last; another takes over")
            self.pass_time(LEASE_SECONDS)
            Engine(self.db, owner="another", hooks=self.hooks, steps=self.steps).run_one()
            return False
        return roll < 0.15

    def _deliver(self) -> bool:
        self.all_lines()
        due = self._looked("orders", self._waiting, host_operation, host)
        fresh = [
            order
            for order in due
            if (line := self.lines.get(order.host_id)) and line.alive and order.operation_id not in line.delivered
        ]
        if not fresh:
            return False
        line = self.lines[self.dice.choice(fresh).host_id]
        for order in fresh:
            if order.host_id == line.host_id:
                line.delivered.add(order.operation_id)
                line.inbox.append(order)
        return True

    def _waiting(self, tx: Tx) -> list[Waiting]:
        return operations.waiting(tx, self.lines)

    def _execute(self) -> bool:
        busy = [line for line in self.lines.values() if line.powered and line.inbox]
        if not busy:
            return False
        line = self.dice.choice(busy)
        first: dict[str, Waiting] = {}
        for order in line.inbox:
            first.setdefault(order.queue, order)
        order = first[self.dice.choice(list(first))]
        line.inbox.remove(order)
        if self.dice.random() < self.twice:
            line.inbox.insert(0, order)
        kind = type(order.operation).__name__
        try:
            answer = self.hosts.deliver(line.uuid, order.operation_id, order.queue, order.operation)
        except AnswerLost:
            self.chronicle.note(f"host {line.host_id} {kind} {order.operation_id}: the agent died")
            self.kill_agent(line)
            return True
        told = answer.refusal or answer.result
        self.chronicle.note(f"host {line.host_id} {kind} {order.queue} {order.operation_id}: {told}")
        if line.alive:
            line.outbox += [answer] * (1 + (self.dice.random() < self.twice))
        return True

    def _store(self) -> bool:
        full = [line for line in self.lines.values() if line.alive and line.outbox]
        if not full:
            return False
        line = self.dice.choice(full)
        message = line.outbox.pop(0)
        if isinstance(message, Answer):
            with self.db.write() as tx:
                stored = operations.record(tx, line.host_id, message)
                if stored is not None:
                    answered(tx, stored)
            line.delivered.discard(message.operation_id)
            self.hosts.forget(message.operation_id)
            return True
        self.chronicle.note(f"host {line.host_id} tells that {message.name} {message.change}")
        with self.db.write() as tx:
            vm_sync.happened(tx, line.host_id, uuid=message.uuid, epoch=message.epoch, change=message.change)
        return True

    def _reconnect(self) -> bool:
        away = [line for line in self.all_lines() if not line.up and line.reachable and line.powered]
        away = [line for line in away if self._has_agent(line)]
        if not away:
            return self._end_asked()
        self._connect(self.dice.choice(away))
        return True

    def _end_asked(self) -> bool:
        """The line of a host that was asked to connect anew, as the server that holds it ends it."""
        asked = self._looked("asked", lambda tx: liveness.reconnecting(tx, SERVER), host)
        lines = [line for line in self.all_lines() if line.up and line.host_id in asked]
        if not lines:
            return False
        self.end_line(self.dice.choice(lines))
        return True

    def _reconcile_due(self) -> bool:
        names, asked = self._looked("reconcilers", self._due, lease, timed=True)
        if self.trouble and self.dice.random() < 0.7:
            # A period may be over for a while before its reconciler is run: seeds get further this way.
            names = asked
        if not names:
            return False
        name = self.dice.choice(names)
        self.chronicle.note(f"reconciler {name}")
        try:
            reconciler.run_once(self.db, name, owner=SERVER)
        except Exception as error:
            self.chronicle.bug(f"reconciler {name}: {type(error).__name__}: {error}")
        return True

    def _due(self, tx: Tx) -> tuple[list[str], list[str]]:
        """Names of reconcilers that are due, and those of them that somebody asked for."""
        names = sorted(name for name in reconciler.due(tx) if name not in UNPLAYED)
        triggered = reconciler.triggered(tx)
        return names, [name for name in names if name in triggered]

    def _has_agent(self, line: Line) -> bool:
        return line.host_id in self.stores or line.uuid in self.hosts.world.hosts

    def _changed(self, host_uuid: str, name: str, uuid: str, epoch: int, change: VmChange) -> None:
        for line in self.lines.values():
            if line.uuid == host_uuid and line.alive:
                line.outbox.append(Happened(host_uuid, name, uuid, epoch, change))

    # ---- instruments

    def end(self) -> None:
        """Take the instruments out of the database, which others use after us."""
        del self.db.write

    def _count_commits(self) -> None:
        write = self.db.write

        @contextmanager
        def counted() -> Iterator[Tx]:
            ends = False
            if self.crash_in:
                self.crash_in -= 1
                ends = self.crash_in == 0
            with write() as tx:
                yield tx
                if ends and self.crash_before:
                    self.chronicle.note("server ends before a commit")
                    raise Crash
            if ends:
                self.chronicle.note("server ends after a commit")
                raise Crash

        self.db.write = counted  # type: ignore[method-assign]

    def _told(self, step: Step) -> Step:
        told = Step(step.name, self._telling(step.name, step.do))
        if step.back is not None:
            told.back = self._telling(f"undo {step.name}", step.back)
        return told

    def _telling(self, name: str, action: Action) -> Action:
        def telling(ctx: Call, **arguments: Any) -> None:
            about = f"job {ctx.job_id} {name} {arguments}"
            try:
                action(ctx, **arguments)
            except Nap as nap:
                self.chronicle.note(f"{about} naps for {nap.topic or nap.seconds}")
                raise
            except TryElsewhere as signal:
                self.chronicle.note(f"{about} tries elsewhere: {signal.key} {signal.reason}")
                raise
            except Exception as error:
                self.chronicle.note(f"{about} raises {type(error).__name__}: {error}")
                raise
            self.chronicle.note(about)

        return telling


_NEXT_WAKE = Prepared(select(func.min(job.c.wake_at)).where(job.c.open == 1))

_NEXT_LEASE_END = Prepared(select(func.min(lease.c.until_at)).where(lease.c.until_at > bindparam("now")))


def _stuck(tx: Tx, row: RowMapping) -> None:
    raise_alert(tx, AlertType.JOB, f"job:{row['id']}", f"Job {row['uuid']} is stuck: {row['error_text']}")


def pending(tx: Tx) -> int:
    """How many operations no host has answered."""
    return int(tx.scalar(select(func.count()).select_from(host_operation).where(host_operation.c.pending == 1)))
