"""Instruments that a soundness run puts into a world: who called which step, and what goes wrong where."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.hosts.operations import Waiting
from pileus.server.jobs.call import Call
from pileus.server.jobs.context import Nap
from pileus.server.jobs.plan import Action, Step
from pileus.testing.world import World


class Crash(BaseException):
    """The server process ended here: nothing catches it."""


class InjectedBug(Exception):
    """An error that nobody foresaw."""


class InjectedFailure(ResourceUnavailable):
    """An error that a step reports."""


class Moment(StrEnum):
    """Where in a step a failure strikes: before its first call, or when it has just done its work."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True)
class Place:
    """A step of a workflow, counted from 0."""

    workflow: str
    position: int
    step: str

    def __str__(self) -> str:
        return f"{self.workflow}[{self.position}] {self.step}"


@dataclass
class Trace:
    """What a run did, and what is to go wrong in it. A fresh one changes nothing."""

    places: list[Place] = field(default_factory=list)
    """Every step that ran forward, in order, each once."""
    commits: int = 0
    operations: list[Waiting] = field(default_factory=list)
    """Every operation that was to be delivered, in order, each once."""
    job: str = ""
    """UUID of the job under test, once it has run."""

    fail_at: Place | None = None
    fail_when: Moment = Moment.BEFORE
    bug: bool = False
    """The failure is one that nobody foresaw: the engine tries again before it gives up."""
    crash_at: int | None = None
    twice: bool = False
    undo_twice: bool = False
    undo_fails_once: bool = False
    victim: int | None = None
    """The job that meets the failure: the first to come to its place, and no other."""
    seen: set[tuple[Any, ...]] = field(default_factory=set)


@contextmanager
def traced(world: World, trace: Trace) -> Iterator[None]:
    """Put the instruments into the world for the length of the block."""
    steps, write = world.steps, world.db.write
    world.steps = {name: _wrapped(step, trace) for name, step in steps.items()}
    world.new_engine()

    @contextmanager
    def counted_write() -> Iterator[Tx]:
        with write() as tx:
            yield tx
        trace.commits += 1
        if trace.commits == trace.crash_at:
            raise Crash(f"at commit {trace.commits}")

    def noted(waiting: list[Waiting]) -> None:
        known = {each.operation_id for each in trace.operations}
        trace.operations += [each for each in waiting if each.operation_id not in known]

    world.db.write = counted_write  # type: ignore[method-assign]
    world.on_waiting = noted
    try:
        yield
    finally:
        del world.db.write
        world.steps, world.on_waiting = steps, lambda waiting: None
        world.new_engine()


def place_of(ctx: Call) -> Place:
    """The step that a context belongs to."""
    return Place(ctx.held.workflow, ctx.held.position, ctx.held.call.step)


def _wrapped(step: Step, trace: Trace) -> Step:
    wrapped = Step(step.name, _watched(step.do, trace))
    if step.back is not None:
        wrapped.back = _undo(step.back, trace)
    return wrapped


def _watched(do: Action, trace: Trace) -> Action:
    def action(ctx: Call, **arguments: Any) -> None:
        place = place_of(ctx)
        if place not in trace.places:
            trace.places.append(place)
        fails = place == trace.fail_at and trace.victim in (None, ctx.job_id)
        if fails:
            trace.victim = ctx.job_id
        if fails and trace.fail_when is Moment.BEFORE:
            raise _failure(trace)
        do(ctx, **arguments)
        if fails:
            raise _failure(trace)
        if trace.twice:
            _again(ctx, trace)

    return action


def _undo(back: Action, trace: Trace) -> Action:
    def action(ctx: Call, **arguments: Any) -> None:
        if trace.undo_fails_once and _first(ctx, trace, "fails"):
            raise InjectedBug("an undo that fails once")
        back(ctx, **arguments)
        if trace.undo_twice:
            _again(ctx, trace)

    return action


def _again(ctx: Call, trace: Trace) -> None:
    """Commit what was done without moving the cursor, so that the same call comes once more."""
    if _first(ctx, trace, "again"):
        raise Nap(0.0)


def _first(ctx: Call, trace: Trace, what: str) -> bool:
    key = (what, ctx.job_id, ctx.held.position, ctx.round, ctx.undoing)
    new = key not in trace.seen
    trace.seen.add(key)
    return new


def _failure(trace: Trace) -> Exception:
    return InjectedBug("a bug") if trace.bug else InjectedFailure("an injected failure")
