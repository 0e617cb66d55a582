"""How a step asks a host: insert the operation once, nap until it is answered, judge by reason and never by text.

An operation is named after the step, the round and the direction, so every call of the step finds the same one.
Whoever gives up on an answer (`HostSilent`) must have an undo that asks for the opposite in the same queue: the host
may have acted, or may still act.
"""

from collections.abc import Callable

from sqlalchemy import bindparam, select

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.host import host, host_operation
from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import (
    InsufficientCapacity,
    InternalError,
    ParameterError,
    PileusError,
    ResourceUnavailable,
)
from pileus.server.domain.host import HostState
from pileus.server.hosts import operations
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.submit import wake
from pileus.wire.operations import AnyOperation, AnyResult, Reason, Refusal

ANSWER_SECONDS = 600.0
LOOK_AGAIN_SECONDS = (30.0, 300.0)
"""How soon, at first and at last, `make_sure` looks whether the host that does not answer is Down by now."""

_CODES = {
    Reason.NO_ROOM: InsufficientCapacity.code,
    Reason.UNREACHABLE: ResourceUnavailable.code,
    Reason.MISSING: ResourceUnavailable.code,
    Reason.REJECTED: ParameterError.code,
}


class HostRefused(PileusError):
    """The host said no. Its code follows the reason: no room 533, out of reach or missing 534, bad input 431."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal
        self.code = _CODES.get(refusal.reason, InternalError.code)


class HostSilent(ResourceUnavailable):
    """The host did not answer in time. It may have acted all the same."""

    def __init__(self, host_id: int) -> None:
        super().__init__(f"host {host_id} did not answer in time")
        self.host_id = host_id


def ask(
    ctx: StepContext,
    host_id: int,
    operation: AnyOperation | Callable[[], AnyOperation],
    *,
    queue: str,
    label: str = "",
    deadline_seconds: float = ANSWER_SECONDS,
) -> AnyResult:
    """The host's answer; the step naps until it is there. Raises `HostRefused` and `HostSilent`.

    The time runs from the first call; a function that makes the operation is called then only.
    `label` tells several operations of one step apart (at most 30 characters).
    """
    asked = operations.request(
        ctx.tx,
        host_id,
        operation,
        operation_id=ctx.operation_id(label),
        queue=queue,
        job_id=ctx.job_id,
        deadline_at=ctx.tx.now + int(deadline_seconds * 1000),
    )
    if asked.refusal is not None:
        raise HostRefused(asked.refusal)
    if asked.result is not None:
        return asked.result
    deadline_at = asked.deadline_at or 0
    if ctx.tx.now >= deadline_at:
        raise HostSilent(host_id)
    raise Nap(ctx.until(deadline_at), topic=asked.topic)


def make_sure(
    ctx: StepContext, host_id: int, operation: AnyOperation, *, queue: str, label: str = ""
) -> AnyResult | None:
    """Have it so, for stops and undos: the good answer, or None when the host is Down or Removed.

    The operation then stays pending until a host that is Down comes back. A refusal raises `HostRefused`; asked again
    (the engine retries undos) it is a new operation. In an undo, what the step asked in the same queue and is not yet
    answered is withdrawn first: it must not be delivered to a host that comes back after the job is over.
    """
    if ctx.undoing:
        _withdraw_asked(ctx, host_id, queue)
    found = rows.one(ctx.tx, host, id=host_id)
    state = None if found is None else found["state"]
    if state is None or state == HostState.REMOVED:
        return None
    asked = operations.request(
        ctx.tx,
        host_id,
        operation,
        operation_id=ctx.operation_id(f"{label}.{ctx.attempt}"),
        queue=queue,
        job_id=ctx.job_id,
    )
    if asked.refusal is not None:
        raise HostRefused(asked.refusal)
    if asked.result is not None:
        return asked.result
    if state == HostState.DOWN:
        return None
    first, last = LOOK_AGAIN_SECONDS
    age = (ctx.tx.now - asked.created_at) / 1000
    raise Nap(min(last, max(first, age / 2)), topic=asked.topic)


def answered(tx: Tx, operation: operations.HostOperation) -> None:
    """What follows from a stored answer: whoever naps on it goes on. Called in the transaction that stores it."""
    wake(tx, operation.topic)


def _withdraw_asked(ctx: StepContext, host_id: int, queue: str) -> None:
    for operation_id in _ASKED.scalars(ctx.tx, host_id=host_id, job_id=ctx.job_id, queue=queue):
        operations.withdraw(ctx.tx, operation_id, "its job gave up waiting")


_ASKED = Prepared(
    select(host_operation.c.operation_id).where(
        host_operation.c.pending == 1,
        host_operation.c.host_id == bindparam("host_id"),
        host_operation.c.job_id == bindparam("job_id"),
        host_operation.c.queue == bindparam("queue"),
        host_operation.c.deadline_at.is_not(None),
    )
)
