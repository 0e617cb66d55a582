"""Holding a job: claim it under a lease with a fencing token, write under that token, let it go.

A held job looks parked until its lease runs out (`wake_at` is the lease's end), so claims skip it for free and find it
again when its holder died. Every write says `where lease_token = :mine`; a holder that lost it rolls back and stops.
"""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import msgspec
from sqlalchemy import BigInteger, Integer, RowMapping, bindparam, or_, select, update

from pileus.server.db.moment import clock_of, now_expression, now_parameter
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.job import Phase
from pileus.server.jobs.plan import Plan, StepCall, decode
from pileus.server.jobs.wakeup import announce

LEASE_SECONDS = 30.0


class LeaseLost(Exception):
    """Somebody else holds the job now: whatever was being done for it is rolled back."""


@dataclass(frozen=True)
class Held:
    """A job in our hands: what its row said at the last commit."""

    id: int
    uuid: str
    token: int
    workflow: str
    account_id: int
    domain_id: int
    user_id: int
    resource_key: str | None
    start_event_id: int | None
    calls: tuple[StepCall, ...]
    phase: Phase
    position: int
    round: int
    attempts: int
    avoid: dict[str, str]
    result: dict[str, Any]
    waited_for: str | None
    """The topic it was parked on when it was claimed."""
    deadline_at: int | None
    error_code: int | None
    error_text: str | None
    apart: bool = False
    """Whether a stretch of it has failed: until it is parked, every step is a transaction of its own."""

    @property
    def call(self) -> StepCall:
        """The step the cursor stands on."""
        return self.calls[self.position]


def claim(db: Database, owner: str, *, lease_seconds: float = LEASE_SECONDS) -> Held | None:
    """Take the runnable job that has waited longest, or None."""
    return next(iter(claim_some(db, owner, lease_seconds=lease_seconds, limit=1)), None)


def claim_some(db: Database, owner: str, *, lease_seconds: float, limit: int) -> list[Held]:
    """Take the runnable jobs that have waited longest, as many as `limit`, in a transaction of its own."""
    with db.read() as tx:
        if not is_runnable(tx):
            return []
    return db.run(lambda tx: take(tx, owner, lease_seconds=lease_seconds, limit=limit))


def is_runnable(tx: Tx) -> bool:
    """Whether there is a job to be taken: a look that holds up nobody."""
    return _runnable(clock_of(tx), locked=False).scalar(tx, now=tx.now, most=1, **now_parameter(tx)) is not None


def take(tx: Tx, owner: str, *, lease_seconds: float, limit: int) -> list[Held]:
    """Take the runnable jobs that have waited longest, as many as `limit`; those that others are taking are left."""
    clock, now = clock_of(tx), now_parameter(tx)
    lease_ms = int(lease_seconds * 1000)
    taken = []
    for row in _runnable(clock, locked=True).all(tx, now=tx.now, most=limit, **now):
        token = int(row["lease_token"])
        parameters = {"the_id": row["id"], "seen_token": token, "new_token": token + 1, "new_owner": owner}
        leased = {"lease_ms": lease_ms, "lease_end": tx.now + lease_ms}
        if _claiming(clock).changed(tx, **parameters, **leased, **now):
            taken.append(_held(row, token + 1))
    return taken


@cache
def _runnable(clock: str, *, locked: bool) -> Prepared:
    """Locked, what is read is what is claimed, also when a holder that came too late moves the cursor in between."""
    free = or_(job.c.lease_until_at.is_(None), job.c.lease_until_at <= now_expression(clock))
    found = select(job if locked else job.c.id).where(job.c.open == 1, job.c.wake_at <= bindparam("now"), free)
    found = found.order_by(job.c.wake_at, job.c.id).limit(bindparam("most", type_=Integer))
    return Prepared(found.with_for_update(skip_locked=True) if locked else found)


@cache
def _claiming(clock: str) -> Prepared:
    return Prepared(
        update(job)
        .where(job.c.id == bindparam("the_id"), job.c.lease_token == bindparam("seen_token"), job.c.open == 1)
        .values(
            lease_owner=bindparam("new_owner"),
            lease_token=bindparam("new_token"),
            lease_until_at=now_expression(clock) + bindparam("lease_ms", type_=BigInteger),
            wake_at=bindparam("lease_end"),
            waiting_for=None,
        )
    )


def _held(row: RowMapping, token: int) -> Held:
    plan: Plan = decode(row["workflow"], row["plan"])
    return Held(
        id=row["id"],
        uuid=row["uuid"],
        token=token,
        workflow=row["workflow"],
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=row["user_id"],
        resource_key=row["resource_key"],
        start_event_id=row["start_event_id"],
        calls=plan.calls,
        phase=Phase(row["phase"]),
        position=row["position"],
        round=row["round"],
        attempts=row["attempts"],
        avoid=msgspec.json.decode(row["avoid"], type=dict[str, str]),
        result=msgspec.json.decode(row["result"] or "{}", type=dict[str, Any]),
        waited_for=row["waiting_for"],
        deadline_at=row["deadline_at"],
        error_code=row["error_code"],
        error_text=row["error_text"],
    )


def keep(tx: Tx, held: Held, *, lease_seconds: float = LEASE_SECONDS) -> None:
    """Write the cursor and renew the lease. Raises LeaseLost."""
    lease_ms = int(lease_seconds * 1000)
    _write(tx, held, _keeping(clock_of(tx)), lease_ms=lease_ms, new_wake_at=tx.now + lease_ms, **now_parameter(tx))


def park(tx: Tx, held: Held, *, wake_at: int | None, topic: str | None = None) -> None:
    """Write the cursor and let the job go until `wake_at` or a wake of `topic`. Raises LeaseLost."""
    _write(tx, held, _PARKING, new_wake_at=wake_at, new_topic=topic)


def end(tx: Tx, held: Held) -> None:
    """Write the outcome (phase, error, result) and close the row. Raises LeaseLost."""
    _write(tx, held, _ENDING, new_completed_at=tx.now)


def let_go(db: Database, held: Held) -> None:
    """Give the lease back: the job is runnable at once by anybody. A lost lease is nothing to us any more."""

    def give_back(tx: Tx) -> None:
        _GIVING_BACK.changed(tx, the_id=held.id, the_token=held.token, new_wake_at=tx.now)
        tx.after_commit(announce)

    db.run(give_back)


def take_away(tx: Tx, owner: str) -> int:
    """Make every job that `owner` holds runnable at once, because it is dead or was given up. Returns how many.

    The token moves too: should it live after all, none of its writes finds the row.
    """
    held = update(job).where(job.c.open == 1, job.c.lease_owner == owner)
    freed = {"lease_owner": None, "lease_until_at": None, "lease_token": job.c.lease_token + 1, "wake_at": tx.now}
    taken = int(tx.execute(held.values(**freed)).rowcount)
    if taken:
        tx.after_commit(announce)
    return taken


def advanced(held: Held, **changes: Any) -> Held:
    """The job after a move of its cursor; a move forgets failed attempts and what was waited for."""
    return replace(held, **{"attempts": 0, "waited_for": None, **changes})


def _write(tx: Tx, held: Held, statement: Prepared, **parameters: Any) -> None:
    cursor = {
        "the_id": held.id,
        "the_token": held.token,
        "new_phase": str(held.phase),
        "new_position": held.position,
        "new_round": held.round,
        "new_attempts": held.attempts,
        "new_avoid": msgspec.json.encode(held.avoid).decode(),
        "new_result": msgspec.json.encode(held.result).decode(),
        "new_error_code": held.error_code,
        "new_error_text": held.error_text,
    }
    if statement.changed(tx, **cursor, **parameters) != 1:
        raise LeaseLost(held.uuid)


def _writing(**values: Any) -> Prepared:
    """An update of the cursor under our token."""
    cursor = ("phase", "position", "round", "attempts", "avoid", "result", "error_code", "error_text")
    mine = update(job).where(job.c.id == bindparam("the_id"), job.c.lease_token == bindparam("the_token"))
    return Prepared(mine.values({**{name: bindparam(f"new_{name}") for name in cursor}, **values}))


@cache
def _keeping(clock: str) -> Prepared:
    until_at = now_expression(clock) + bindparam("lease_ms", type_=BigInteger)
    return _writing(lease_until_at=until_at, wake_at=bindparam("new_wake_at"))


_GONE = {"lease_owner": None, "lease_until_at": None}

_GIVING_BACK = Prepared(
    update(job)
    .where(job.c.id == bindparam("the_id"), job.c.lease_token == bindparam("the_token"), job.c.lease_owner.is_not(None))
    .values(**_GONE, wake_at=bindparam("new_wake_at"))
)

_PARKING = _writing(**_GONE, wake_at=bindparam("new_wake_at"), waiting_for=bindparam("new_topic"))

_ENDING = _writing(
    **_GONE,
    wake_at=None,
    waiting_for=None,
    open=None,
    running_key=None,
    completed_at=bindparam("new_completed_at"),
)
