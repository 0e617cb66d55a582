"""The saga engine: carries a claimed job forward, takes it back when a step fails.

One transaction is a stretch: the steps up to the next nap or the end, plus the move of the cursor, guarded by the
lease's token. A crash repeats the stretch that did not commit. If anything in it fails, all of it is rolled back and
played again step by step, a commit each, so what counts as started is what it would be without stretches. `position`
is the step that runs or is being undone; it counts as started before its first call, so its undo runs too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog
from sqlalchemy import RowMapping, bindparam, select, update

from pileus.server.db import rows
from pileus.server.db.conflict import is_conflict, retried
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.job import job
from pileus.server.db.topics import hold_topics
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.errors import InternalError, PileusError, ResourceUnavailable
from pileus.server.domain.job import Phase
from pileus.server.jobs.call import Call
from pileus.server.jobs.context import Nap, TryElsewhere
from pileus.server.jobs.hold import (
    Held,
    LeaseLost,
    advanced,
    claim,
    claim_some,
    end,
    is_runnable,
    keep,
    let_go,
    park,
    take,
)
from pileus.server.jobs.plan import Step
from pileus.server.jobs.plan import steps as registered_steps
from pileus.server.jobs.submit import wake
from pileus.server.jobs.wakeup import announce
from pileus.server.meter import Histogram, seconds

log = structlog.get_logger()

STEPS = Histogram(
    "pileus_job_step_seconds",
    "One call of a step or undo of a job, and its commit if it has one of its own; waiting for a host is between calls",
    "step",
    "direction",
)

MOST_STEPS = 16
"""Steps of one stretch: a long plan does not keep others from writing for long."""

MOST_TOGETHER = 16
"""Jobs that share a transaction where there is one writer: they wait for each other, not for a flush each."""

MOST_CLAIMED = 4
"""Jobs that a worker takes at once where there are several writers."""

JobHook = Callable[[Tx, RowMapping], None]
"""Called with the job's row as it is after the change, in the transaction of the change."""

StartHook = Callable[[Tx, str, int], None]
"""Called with the job's workflow and the key of the event that announced it, in the transaction of its first step."""


@dataclass
class Hooks:
    """What others do when jobs begin and end. An error in a hook counts as an error of the job's step or undo."""

    on_start: list[StartHook] = field(default_factory=list)
    """The first step is called, perhaps not for the first time; only for jobs that were announced by an event."""
    on_end: list[JobHook] = field(default_factory=list)
    """Succeeded or failed."""
    on_failed: list[JobHook] = field(default_factory=list)
    """Failed, everything undone; called before `on_end`."""
    on_stuck: list[JobHook] = field(default_factory=list)
    """An undo keeps failing: raise an alert."""


@dataclass(frozen=True)
class Patience:
    """How often failing calls are repeated, and the seconds between (doubled each time up to a minute)."""

    step_retries: int = 3
    undo_retries: int = 8
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 60.0
    lease_seconds: float = 30.0

    def pause_ms(self, attempts: int) -> int:
        """Milliseconds before the next try, after `attempts` failures."""
        return int(min(self.first_pause_seconds * 2 ** (attempts - 1), self.longest_pause_seconds) * 1000)


class Engine:
    """Runs jobs of one server. Holds no state between jobs: any engine may continue what another began."""

    def __init__(
        self,
        db: Database,
        *,
        owner: str,
        hooks: Hooks | None = None,
        steps: Mapping[str, Step] = registered_steps,
        patience: Patience | None = None,
        fused: bool = True,
    ) -> None:
        """With `fused` False every step is a transaction of its own, as it is after a failure."""
        self.db = db
        self.owner = owner
        self.hooks = hooks or Hooks()
        self._steps = steps
        self._patience = patience or Patience()
        self._fused = fused

    def claim(self) -> Held | None:
        """Take a runnable job, or None when there is none."""
        return claim(self.db, self.owner, lease_seconds=self._patience.lease_seconds)

    def take(self, *, limit: int | None = None) -> list[Held] | None:
        """Take runnable jobs, and with one writer carry each through a stretch in the same transaction.

        Returns those that are still in our hands, to be given to `run`; None when there was nothing to do.
        """
        if self._fused and self.db.is_sqlite:
            with self.db.read() as tx:
                if not is_runnable(tx):
                    return None
            return self.db.run(lambda tx: self._together(tx, limit or MOST_TOGETHER))
        most = limit or MOST_CLAIMED
        taken = claim_some(self.db, self.owner, lease_seconds=self._patience.lease_seconds, limit=most)
        return taken or None

    def run(self, held: Held, *, stopping: Callable[[], bool] = lambda: False) -> None:
        """Go on with a claimed job until it parks, ends or is lost; between steps, give it back when `stopping`."""
        current: Held | None = held
        with structlog.contextvars.bound_contextvars(job=held.uuid):
            try:
                if self._may_fuse(held) and not stopping():
                    current = self._alone(held)
                while current is not None:
                    if stopping():
                        let_go(self.db, current)
                        return
                    current = self._move(current)
            except LeaseLost:
                log.warning("job lease lost", workflow=held.workflow)

    def run_one(self) -> bool:
        """Claim one job and run it. False when none is runnable."""
        taken = self.take(limit=1)
        for held in taken or ():
            self.run(held)
        return taken is not None

    # ---- stretches

    def _may_fuse(self, held: Held) -> bool:
        fresh = self._fused and not held.apart and held.phase is Phase.FORWARD and held.attempts == 0
        return fresh and (held.deadline_at is None or self.db.clock.now() < held.deadline_at)

    def _together(self, tx: Tx, limit: int) -> list[Held]:
        """Claim jobs and carry each through a stretch. Those whose stretch failed are only claimed, to go on alone."""
        left: list[Held] = []
        for held in take(tx, self.owner, lease_seconds=self._patience.lease_seconds, limit=limit):
            after: Held | None = held
            if self._may_fuse(held):
                after = self._attempted(tx, held)
            if after is not None:
                left.append(after)
        return left

    def _attempted(self, tx: Tx, held: Held) -> Held | None:
        try:
            with structlog.contextvars.bound_contextvars(job=held.uuid), tx.attempt():
                return self._stretch(tx, held)
        except Exception as error:
            return _apart(held, error)

    def _alone(self, held: Held) -> Held | None:
        """A stretch in a transaction of its own; the job as it was, to go on step by step, when anything failed."""

        def stretch() -> Held | None:
            with self.db.write() as tx:
                return self._stretch(tx, held)

        try:
            return retried(stretch)
        except LeaseLost:
            raise
        except Exception as error:
            return _apart(held, error)

    def _stretch(self, tx: Tx, held: Held) -> Held | None:
        """Steps up to a nap, the end or too many. Raises whatever a step raises."""
        current = held
        for _ in range(MOST_STEPS):
            began = seconds()
            try:
                after = self._one(tx, current)
            finally:
                if current.calls:
                    STEPS.observe(seconds() - began, current.call.step, "do")
            if after is None:
                return None
            current = after
        keep(tx, current, lease_seconds=self._patience.lease_seconds)
        return current

    def _move(self, held: Held) -> Held | None:
        """One call of a step or an undo, timed."""
        forward = held.phase is Phase.FORWARD
        began = seconds()
        try:
            return self._forward(held) if forward else self._back(held)
        finally:
            if held.calls:
                STEPS.observe(seconds() - began, held.call.step, "do" if forward else "undo")

    # ---- forward

    def _forward(self, held: Held) -> Held | None:
        """One call of a step. The job as it is now, or None when it was parked or has ended."""
        if held.deadline_at is not None and self.db.clock.now() >= held.deadline_at:
            return self._fail(held, ResourceUnavailable(_deadline_text(held)))
        try:
            return retried(lambda: self._step(held))
        except LeaseLost:
            raise
        except TryElsewhere as signal:
            return self._try_elsewhere(held, signal)
        except PileusError as error:
            return self._fail(held, error)
        except Exception as error:
            log.exception("step failed", workflow=held.workflow, step=held.call.step if held.calls else "")
            if held.attempts < self._patience.step_retries:
                self._retry(held)
                return None
            return self._fail(held, InternalError(_reference(held)), cause=error)

    def _step(self, held: Held) -> Held | None:
        with self.db.write() as tx:
            after = self._one(tx, held)
            if after is not None:
                keep(tx, after, lease_seconds=self._patience.lease_seconds)
        return after

    def _one(self, tx: Tx, held: Held) -> Held | None:
        """Call one step. The job with its cursor moved, not yet written; None when it was parked or has ended."""
        if not held.calls:
            self._succeed(tx, held)
            return None
        if held.position == 0 and held.start_event_id is not None:
            for hook in self.hooks.on_start:
                hook(tx, held.workflow, held.start_event_id)
        call = Call(tx, held)
        nap = self._attempt(call)
        if nap is not None:
            self._park(tx, held, nap, call.result)
            return None
        after = advanced(held, position=held.position + 1, result=call.result)
        if after.position < len(held.calls):
            return after
        self._succeed(tx, after)
        return None

    def _attempt(self, call: Call) -> Nap | None:
        """Call the step or undo. On a nap for a topic, look again once nobody can wake it unseen."""
        nap = self._call(call)
        # With several writers, a wake-up may have passed between the step's look and our park: see db.topics.
        if nap is not None and nap.topic and hold_topics(call.tx, nap.topic):
            nap = self._call(call)
        return nap

    def _call(self, call: Call) -> Nap | None:
        step = self._steps[call.held.call.step]
        action = step.back if call.undoing else step.do
        try:
            if action is not None:
                action(call, **call.held.call.arguments)
        except Nap as nap:
            return nap
        return None

    def _park(self, tx: Tx, held: Held, nap: Nap, result: dict[str, object]) -> None:
        wakes = [] if nap.seconds is None else [tx.now + max(0, int(nap.seconds * 1000))]
        if held.phase is Phase.FORWARD and held.deadline_at is not None:
            wakes.append(held.deadline_at)
        if not wakes and not nap.topic:
            raise ValueError(f"step {held.call.step} naps for ever")
        park(tx, replace(held, result=result), wake_at=min(wakes, default=None), topic=nap.topic or None)

    def _try_elsewhere(self, held: Held, signal: TryElsewhere) -> Held | None:
        if held.call.block == 0:
            log.error("step outside of a block wants to try elsewhere", step=held.call.step)
            return self._fail(held, ResourceUnavailable(signal.reason))
        log.info("job tries elsewhere", step=held.call.step, key=signal.key, reason=signal.reason)
        avoid = {**held.avoid, signal.key: signal.reason}
        return self._turn(held, advanced(held, phase=Phase.REWIND, avoid=avoid))

    def _retry(self, held: Held) -> None:
        after = replace(held, attempts=held.attempts + 1)
        pause_ms = self._patience.pause_ms(after.attempts)
        self.db.run(lambda tx: park(tx, after, wake_at=tx.now + pause_ms))

    def _fail(self, held: Held, error: PileusError, *, cause: Exception | None = None) -> Held | None:
        log.info("job unwinds", workflow=held.workflow, code=error.code, text=error.text, cause=repr(cause or error))
        changes = {"error_code": error.code, "error_text": error.text[:4000]}
        return self._turn(held, advanced(held, phase=Phase.UNWIND, **changes))

    def _turn(self, held: Held, after: Held) -> Held | None:
        """Begin to go back, in a transaction of its own: that of the failed step is rolled back."""

        def turn(tx: Tx) -> Held | None:
            if not held.calls:
                self._failed(tx, after)
                return None
            keep(tx, after, lease_seconds=self._patience.lease_seconds)
            return after

        return self.db.run(turn)

    def _succeed(self, tx: Tx, held: Held) -> None:
        end(tx, replace(held, phase=Phase.SUCCEEDED))
        self._ended(tx, held)

    # ---- back

    def _back(self, held: Held) -> Held | None:
        """One call of an undo. The job as it is now, or None when it was parked or has ended."""
        try:
            return retried(lambda: self._undo(held))
        except LeaseLost:
            raise
        except Exception as error:
            log.exception("undo failed", workflow=held.workflow, step=held.call.step)
            if held.attempts < self._patience.undo_retries:
                self._retry(held)
                return None
            self._stick(held, error)
            return None

    def _undo(self, held: Held) -> Held | None:
        with self.db.write() as tx:
            call = Call(tx, held)
            nap = self._attempt(call)
            if nap is not None:
                self._park(tx, held, nap, call.result)
                return None
            after = self._next_undo(advanced(held, result=call.result))
            if after is None:
                self._failed(tx, held)
                return None
            keep(tx, after, lease_seconds=self._patience.lease_seconds)
        return after

    def _next_undo(self, held: Held) -> Held | None:
        """Where the cursor goes after the undo at its position; None when nothing is left to be undone."""
        block = held.call.block
        position = held.position - 1
        while position >= 0:
            if held.phase is Phase.REWIND and held.calls[position].block != block:
                break
            step = self._steps.get(held.calls[position].step)
            if step is None or step.back is not None:
                return replace(held, position=position)
            position -= 1
        if held.phase is Phase.REWIND:
            return replace(held, phase=Phase.FORWARD, position=position + 1, round=held.round + 1)
        return None

    def _failed(self, tx: Tx, held: Held) -> None:
        end(tx, replace(held, phase=Phase.FAILED))
        self._ended(tx, held, self.hooks.on_failed)

    def _stick(self, held: Held, error: Exception) -> None:
        failure = error if isinstance(error, PileusError) else InternalError(_reference(held))
        after = replace(
            held,
            phase=Phase.STUCK,
            error_code=held.error_code or failure.code,
            error_text=held.error_text or failure.text[:4000],
        )
        log.error("job is stuck", workflow=held.workflow, step=held.call.step)

        def stick(tx: Tx) -> None:
            park(tx, after, wake_at=None)
            self._tell(tx, held, self.hooks.on_stuck)

        self.db.run(stick)

    def _ended(self, tx: Tx, held: Held, first: list[JobHook] | None = None) -> None:
        self._tell(tx, held, [*(first or []), *self.hooks.on_end])
        wake(tx, f"job:{held.id}")
        if held.resource_key is not None:
            start_next(tx, held.resource_key)

    def _tell(self, tx: Tx, held: Held, hooks: list[JobHook]) -> None:
        if hooks:
            row = rows.one(tx, job, id=held.id)
            assert row is not None  # noqa: S101 (it was written a moment ago)
            for hook in hooks:
                hook(tx, row)


def start_next(tx: Tx, resource_key: str) -> None:
    """Let the job that waits longest for the resource run. The one that ran has given up its `running_key`."""
    hold_topics(tx, f"key:{resource_key}")
    next_id = _NEXT.scalar(tx, the_key=resource_key)
    if next_id is None:
        return
    waits = {"id": next_id, "phase": str(Phase.QUEUED)}
    rows.change(tx, job, waits, phase=str(Phase.FORWARD), running_key=resource_key, wake_at=tx.now)
    tx.after_commit(announce)


_NEXT = Prepared(
    select(job.c.id)
    .where(job.c.open == 1, job.c.resource_key == bindparam("the_key"), job.c.phase == str(Phase.QUEUED))
    .order_by(job.c.id)
    .limit(1)
)


def retry(tx: Tx, job_id: int) -> bool:
    """Let a stuck job go on undoing, from the undo that kept failing. False when it is not stuck."""
    tx.after_commit(announce)
    stuck = update(job).where(job.c.id == job_id, job.c.phase == str(Phase.STUCK))
    return tx.execute(stuck.values(phase=str(Phase.UNWIND), attempts=0, wake_at=tx.now)).rowcount == 1


def _apart(held: Held, error: Exception) -> Held:
    """The job, to be played step by step from where it was. Conflicts are for the whole transaction to be retried."""
    if is_conflict(error):
        raise error
    log.debug("job goes on step by step", job=held.uuid, workflow=held.workflow, cause=repr(error))
    return replace(held, apart=True)


def _deadline_text(held: Held) -> str:
    waited = f", which waited for {held.waited_for}" if held.waited_for else ""
    step = held.call.step if held.calls else "the start"
    return f"the time of the job ran out at {step}{waited}"


def _reference(held: Held) -> str:
    return f"internal error; the log has more under job {held.uuid}"
