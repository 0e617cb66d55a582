"""The soundness harness: whatever goes wrong where, a workflow ends as it must and leaves nothing behind.

A workflow's test is a `Soundness` and one parametrised function; see `docs/adding-a-workflow.md`. Every scenario runs
the workflow once per point at which something can go wrong, each time in a fresh world.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

from sqlalchemy import RowMapping

from pileus.server.domain.errors import InternalError
from pileus.server.hosts.operations import Waiting
from pileus.server.jobs.submit import JobRef
from pileus.testing.left import Left
from pileus.testing.trace import Crash, InjectedFailure, Moment, Place, Trace, traced
from pileus.testing.world import World
from pileus.wire.messages import Answer
from pileus.wire.operations import Reason, Refusal

C = TypeVar("C")

SILENCE_SECONDS = 2 * 3600.0
"""How long a lost operation or answer stays lost: longer than jobs wait, so they give up before it turns up."""

PAUSE_SECONDS = 20.0
"""How late a late answer is: jobs still wait for it."""


class Scenario(StrEnum):
    """What goes wrong."""

    STRAIGHT = "straight"
    STEPS_TWICE = "steps-twice"
    FAILURES = "failures"
    UNDOS_TWICE = "undos-twice"
    CRASHES = "crashes"
    ANSWERS = "answers"


SCENARIOS = tuple(Scenario)

_BOTH_WAYS = (Scenario.STRAIGHT, Scenario.STEPS_TWICE, Scenario.CRASHES)
"""What is played with steps in stretches and with each step alone. A failure makes a job go on step by step anyway."""


class Unsound(AssertionError):
    """Some points of a scenario went wrong; the text has each."""


@dataclass
class Run(Generic[C]):
    """One run in one world: what was there before, what was submitted, what happened."""

    world: World
    case: C
    before: Left
    ref: JobRef
    trace: Trace

    @property
    def row(self) -> RowMapping:
        """The job's row."""
        return self.world.job(self.ref)


@dataclass(frozen=True)
class Soundness(Generic[C]):
    """A workflow and how to start it.

    `prepare(world)` builds what it needs and returns plain data that `submit(world, case)` wants to know; it runs once
    per scenario, and every point begins with copies of both. `restores` says
    that a failed job leaves exactly what was in use before; without it only consistency is asked for (a stop that
    fails half way cannot start the guest again). `holds(world, case)` asserts what is true after a success.
    `may_succeed` is for workflows that get over the failure of a step of their own, by trying elsewhere.
    """

    workflow: str
    prepare: Callable[[World], C]
    submit: Callable[[World, C], JobRef]
    holds: Callable[[World, C], None] | None = None
    restores: bool = True
    may_succeed: bool = False

    def check(self, scenario: Scenario) -> None:
        """Run the scenario at every point. Raises `Unsound` naming each point that went wrong."""
        with self.prepared() as (world, case):
            for fused in (True, False) if scenario in _BOTH_WAYS else (True,):
                _Runner(self, world, case, fused).check(scenario)

    @contextmanager
    def prepared(self) -> Iterator[tuple[World, C]]:
        """A world with everything the workflow needs."""
        with World.open() as world:
            case = self.prepare(world)
            world.settle()
            yield world, case


@dataclass(frozen=True)
class _Runner(Generic[C]):
    """A workflow with a prepared world, which is copied for every run."""

    sound: Soundness[C]
    world: World
    case: C
    fused: bool
    """Whether consecutive steps share a transaction, as they do until one fails; otherwise each has its own."""

    def check(self, scenario: Scenario) -> None:
        points = {
            Scenario.STRAIGHT: self._straight,
            Scenario.STEPS_TWICE: self._steps_twice,
            Scenario.FAILURES: self._failures,
            Scenario.UNDOS_TWICE: self._undos_twice,
            Scenario.CRASHES: self._crashes,
            Scenario.ANSWERS: self._answers,
        }[scenario]
        wrong: list[tuple[str, Exception]] = []
        count = 0
        for name, point in points():
            count += 1
            try:
                point()
            except Exception as error:
                wrong.append((name, error))
        if wrong:
            told = "\n\n".join(f"{name}:\n{type(error).__name__}: {error}" for name, error in wrong)
            raise Unsound(f"{len(wrong)} of {count} points of {scenario}:\n{told}") from wrong[0][1]

    # ---- scenarios: each yields what goes wrong, and the run to judge

    def _straight(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "straight", lambda: self._must_succeed(Trace())

    def _steps_twice(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "each step twice", lambda: self._must_succeed(Trace(twice=True))

    def _failures(self) -> Iterator[tuple[str, Callable[[], None]]]:
        trace = self._dry_run()
        for place in trace.places:
            if place.workflow != self.sound.workflow:
                continue
            for moment in Moment:
                for bug in (False, True):
                    name = f"{'bug' if bug else 'failure'} {moment} {place}"
                    yield name, lambda p=place, m=moment, b=bug: self._must_unwind(p, m, bug=b)  # type: ignore[misc]

        # Children are proved by harnesses of their own: here each fails as a whole, before it began and at its end.
        children = [place for place in trace.places if place.workflow != self.sound.workflow]
        first = {place.workflow: place for place in reversed(children)}
        last = {place.workflow: place for place in children}
        for edges, moment in ((first, Moment.BEFORE), (last, Moment.AFTER)):
            for place in edges.values():
                yield f"failure {moment} {place}", lambda p=place, m=moment: self._must_unwind(p, m)  # type: ignore[misc]

    def _undos_twice(self) -> Iterator[tuple[str, Callable[[], None]]]:
        own = [place for place in self._dry_run().places if place.workflow == self.sound.workflow]
        yield "each undo twice", lambda: self._must_unwind(own[-1], Moment.AFTER, undo_twice=True)
        yield "each undo fails once", lambda: self._must_unwind(own[-1], Moment.AFTER, undo_fails_once=True)

    def _crashes(self) -> Iterator[tuple[str, Callable[[], None]]]:
        for number in range(1, self._dry_run().commits + 1):
            yield f"crash at commit {number}", lambda n=number: self._must_survive(n)  # type: ignore[misc]

    def _answers(self) -> Iterator[tuple[str, Callable[[], None]]]:
        trace = self._dry_run()
        for number, waiting in enumerate(trace.operations):
            # What children ask is proved in their own harnesses; here an order that comes too late, and one refused.
            own = waiting.operation_id.startswith(f"{trace.job}.")
            for trouble in _TROUBLES if own else (_lost_order,):
                name = f"{trouble.__name__.strip('_').replace('_', ' ')}: {type(waiting.operation).__name__} {number}"
                yield name, lambda n=number, t=trouble: self._with_trouble(n, t)  # type: ignore[misc]
            for reason in Reason if own else (Reason.FAILED,):
                name = f"refused as {reason}: {type(waiting.operation).__name__} {number}"
                yield name, lambda n=number, r=reason: self._with_trouble(n, _refusing(r))  # type: ignore[misc]

    # ---- judgements

    def _must_succeed(self, trace: Trace) -> None:
        with self._begun(trace) as run:
            run.world.settle()
            self._judge(run, fails=False)

    def _must_unwind(self, place: Place, moment: Moment, *, bug: bool = False, **undos: bool) -> None:
        trace = Trace(fail_at=place, fail_when=moment, bug=bug, **undos)  # type: ignore[arg-type]
        with self._begun(trace) as run:
            run.world.settle()
            if place.workflow != self.sound.workflow or self.sound.may_succeed:
                self._judge(run)
                return
            self._judge(run, fails=True)
            code = InternalError.code if bug else InjectedFailure.code
            assert run.row["error_code"] == code, f"error code {run.row['error_code']}: {run.row['error_text']}"  # noqa: S101

    def _must_survive(self, commit: int) -> None:
        with self._begun(Trace(crash_at=commit)) as run:
            try:
                run.world.settle()
            except Crash:
                run.world.new_engine()
                run.world.settle()
            self._judge(run, fails=False)

    def _with_trouble(self, number: int, trouble: "Trouble") -> None:
        with self._begun(Trace()) as run:
            until_at = trouble(run, number)
            run.world.settle()
            run.world.clock.reach(until_at)
            run.world.settle()
            run.world.run_due()
            self._judge(run)

    def _judge(self, run: Run[C], *, fails: bool | None = None) -> None:
        phase = run.row["phase"]
        error = f"{run.row['error_code']} {run.row['error_text']}"
        if phase not in ("succeeded", "failed") or (fails is not None and (phase == "failed") != fails):
            raise AssertionError(f"the job {phase}: {error}; open: {run.world.open_jobs()}")
        if phase == "failed" and self.sound.restores:
            run.world.assert_nothing_left(run.before)
            return
        if phase == "failed":
            # What cannot be taken back is for reconcilers to bring to its end.
            run.world.clock.advance(SILENCE_SECONDS)
            run.world.run_due()
            run.world.assert_nothing_left()
            return
        run.world.assert_nothing_left()
        if self.sound.holds is not None:
            self.sound.holds(run.world, run.case)

    # ---- runs

    @contextmanager
    def _begun(self, trace: Trace) -> Iterator[Run[C]]:
        """A prepared world of its own, with the job submitted and nothing run yet."""
        with self._fresh() as (world, case):
            before = world.left()
            ref = self.sound.submit(world, case)
            world.fused = self.fused
            with traced(world, trace):
                yield Run(world, case, before, ref, trace)

    @contextmanager
    def _fresh(self) -> Iterator[tuple[World, C]]:
        if not self.world.db.is_sqlite:
            # Tests have one server to themselves: preparing again is the only copy there is.
            with self.sound.prepared() as prepared:
                yield prepared
            return
        with self.world.copied() as world:
            yield world, copy.deepcopy(self.case)

    def _dry_run(self) -> Trace:
        with self._begun(Trace()) as run:
            run.world.settle()
            if run.row["phase"] != "succeeded":
                raise AssertionError(f"the straight run {run.row['phase']}: {run.row['error_text']}")
            run.trace.job = run.ref.uuid
            return run.trace


Trouble = Callable[[Run[Any], int], int]
"""Arms trouble with the operation of this number in a run; returns when it is over, in ms since the epoch."""


def _is_number(run: Run[Any], waiting: Waiting, number: int) -> bool:
    noted = run.trace.operations
    return number < len(noted) and noted[number].operation_id == waiting.operation_id


def _from_now(run: Run[Any], seconds: float) -> int:
    return run.world.clock.now() + round(seconds * 1000)


def _lost_order(run: Run[Any], number: int) -> int:
    """The operation does not reach the host until long after everybody gave up."""
    until_at = _from_now(run, SILENCE_SECONDS)
    run.world.refuses_delivery = lambda waiting: _is_number(run, waiting, number) and run.world.clock.now() < until_at
    return until_at


def _lost_answer(run: Run[Any], number: int) -> int:
    """The host acts, its answer is lost, a second delivery returns it."""
    lost: set[str] = set()

    def intercept(waiting: Waiting, answer: Answer) -> list[Answer]:
        if _is_number(run, waiting, number) and waiting.operation_id not in lost:
            lost.add(waiting.operation_id)
            return []
        return [answer]

    run.world.intercept = intercept
    return run.world.clock.now()


def _held_back(run: Run[Any], number: int, seconds: float) -> int:
    until_at = _from_now(run, seconds)

    def intercept(waiting: Waiting, answer: Answer) -> list[Answer]:
        held = _is_number(run, waiting, number) and run.world.clock.now() < until_at
        return [] if held else [answer]

    run.world.intercept = intercept
    return until_at


def _answer_lost_for_long(run: Run[Any], number: int) -> int:
    """The host acts, and its answer turns up long after everybody gave up."""
    return _held_back(run, number, SILENCE_SECONDS)


def _late_answer(run: Run[Any], number: int) -> int:
    """The host acts, and its answer comes while the job still waits."""
    return _held_back(run, number, PAUSE_SECONDS)


def _duplicate(run: Run[Any], number: int) -> int:
    """The answer comes twice."""
    run.world.intercept = lambda waiting, answer: [answer] * (1 + _is_number(run, waiting, number))
    return run.world.clock.now()


_TROUBLES: tuple[Trouble, ...] = (_lost_order, _lost_answer, _answer_lost_for_long, _late_answer, _duplicate)


def _refusing(reason: Reason) -> Trouble:
    def trouble(run: Run[Any], number: int) -> int:
        def refuse(waiting: Waiting) -> Answer | None:
            if not _is_number(run, waiting, number):
                return None
            return Answer(waiting.operation_id, "", refusal=Refusal(reason, f"refused as {reason}"))

        run.world.instead = refuse
        return run.world.clock.now()

    return trouble
