"""Operations asked of hosts: the rows. Everything here runs inside the caller's transaction and talks to nobody."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import RowMapping, bindparam, func, select, update

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.host import host_operation
from pileus.server.db.transaction import Tx
from pileus.server.hosts.signal import announce_requested
from pileus.wire.messages import Answer
from pileus.wire.operations import AnyOperation, AnyResult, Reason, Refusal

_operations = msgspec.json.Decoder(AnyOperation)
_results = msgspec.json.Decoder(AnyResult)
_refusals = msgspec.json.Decoder(Refusal)
_encode = msgspec.json.Encoder().encode

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

PROGRESS_LENGTH = 255
REFUSAL_LENGTH = 4000


@dataclass(frozen=True)
class HostOperation:
    """An operation and how it stands: pending, or with exactly one of `result` and `refusal`."""

    id: int
    operation_id: str
    host_id: int
    queue: str
    kind: str
    job_id: int | None
    percent: int
    progress: str
    pending: bool
    created_at: int
    deadline_at: int | None
    result: AnyResult | None
    refusal: Refusal | None

    @property
    def topic(self) -> str:
        """What a job that waits for the answer naps on."""
        return f"operation:{self.operation_id}"


def job_of(operation_id: str) -> str | None:
    """UUID of the job that asked, as operations of jobs are named after theirs; None for others."""
    head = operation_id.partition(".")[0]
    return head if _UUID.fullmatch(head) else None


@dataclass(frozen=True)
class Waiting:
    """An operation to deliver."""

    operation_id: str
    host_id: int
    queue: str
    operation: AnyOperation


def request(
    tx: Tx,
    host_id: int,
    operation: AnyOperation | Callable[[], AnyOperation],
    *,
    operation_id: str,
    queue: str,
    deadline_at: int | None = None,
    job_id: int | None = None,
) -> HostOperation:
    """Ask, once: a second request with the same id changes nothing and returns how the first stands.

    A function makes the operation, and is called for the first request only.
    """
    known = by_id(tx, operation_id)
    if known is not None:
        return known
    if callable(operation):
        operation = operation()
    kind = type(operation).__name__
    key = rows.add(
        tx,
        host_operation,
        operation_id=operation_id,
        host_id=host_id,
        queue=queue,
        kind=kind,
        body=_encode(operation).decode(),
        job_id=job_id,
        created_at=tx.now,
        deadline_at=deadline_at,
    )
    tx.after_commit(lambda: announce_requested(host_id))
    return HostOperation(
        id=key,
        operation_id=operation_id,
        host_id=host_id,
        queue=queue,
        kind=kind,
        job_id=job_id,
        percent=0,
        progress="",
        pending=True,
        created_at=tx.now,
        deadline_at=deadline_at,
        result=None,
        refusal=None,
    )


def by_id(tx: Tx, operation_id: str) -> HostOperation | None:
    """How the operation stands, or None when it was never requested."""
    row = _BY_ID.one(tx, operation_id=operation_id)
    return None if row is None else _operation(row)


_BY_ID = Prepared(
    # Without what was asked: it may be large, and who asks knows it.
    select(*(column for column in host_operation.columns if column.name != "body")).where(
        host_operation.c.operation_id == bindparam("operation_id")
    )
)


def body_of(tx: Tx, known: HostOperation) -> AnyOperation:
    """What the operation asks for."""
    body = tx.scalar(select(host_operation.c.body).where(host_operation.c.id == known.id))
    operation: AnyOperation = _operations.decode(body)
    return operation


def answer_of(tx: Tx, operation_id: str) -> AnyResult | Refusal | None:
    """The host's answer, or None while there is none."""
    known = by_id(tx, operation_id)
    return None if known is None else known.result or known.refusal


def withdraw(tx: Tx, operation_id: str, text: str) -> bool:
    """Stop waiting: a pending operation becomes refused as unreachable and is not delivered any more.

    The host may have acted all the same; whoever withdraws also asks for what makes it not so. False if answered.
    """
    refusal = Refusal(Reason.UNREACHABLE, text)
    return _settle(tx, operation_id, result=None, refusal=refusal)


def gainsay(tx: Tx, host_id: int, job_id: int | None, kind: str, queue: str, text: str) -> bool:
    """Take back what the host answered to operations of a job: what they brought about has ended since.

    A job that has not looked yet sees a refusal; one that has looked does not look again. False when none was answered.
    """
    refusal = Refusal(Reason.FAILED, text[:REFUSAL_LENGTH])
    answered = (host_operation.c.pending.is_(None), host_operation.c.result.is_not(None))
    asked = (host_operation.c.host_id == host_id, host_operation.c.job_id == job_id, host_operation.c.kind == kind)
    taken_back = update(host_operation).where(*answered, *asked, host_operation.c.queue == queue)
    return tx.execute(taken_back.values(result=None, refusal=_encode(refusal).decode())).rowcount > 0


def withdraw_all(tx: Tx, host_id: int, text: str) -> list[HostOperation]:
    """Withdraw whatever the host has not answered, because it is gone for good. Returns those operations."""
    pending = select(host_operation.c.operation_id).where(
        host_operation.c.pending == 1, host_operation.c.host_id == host_id
    )
    withdrawn = [row["operation_id"] for row in tx.all(pending) if withdraw(tx, row["operation_id"], text)]
    return [known for operation_id in withdrawn if (known := by_id(tx, operation_id)) is not None]


def waiting(tx: Tx, host_ids: Iterable[int]) -> list[Waiting]:
    """Everything the hosts have not answered, in the order it was asked."""
    found = _WAITING.all(tx, host_ids=list(host_ids))
    return [
        Waiting(row["operation_id"], row["host_id"], row["queue"], _operations.decode(row["body"])) for row in found
    ]


_WAITING = Prepared(
    select(host_operation.c.operation_id, host_operation.c.host_id, host_operation.c.queue, host_operation.c.body)
    .where(host_operation.c.pending == 1, host_operation.c.host_id.in_(bindparam("host_ids", expanding=True)))
    .order_by(host_operation.c.id)
)


def hosts_with_waiting(tx: Tx) -> list[int]:
    """All hosts that have something to do: found by what is pending, however many hosts there are."""
    statement = select(host_operation.c.host_id).where(host_operation.c.pending == 1).distinct()
    return [row["host_id"] for row in tx.all(statement)]


def record(tx: Tx, host_id: int, answer: Answer) -> HostOperation | None:
    """Store the first answer of this host. None when it is unknown, answered already, or was asked of another."""
    known = by_id(tx, answer.operation_id)
    if known is None or known.host_id != host_id:
        return None
    refusal = answer.refusal
    if refusal is None and answer.result is None:
        refusal = Refusal(Reason.FAILED, "the host's answer is empty")
    if refusal is not None:
        refusal = Refusal(refusal.reason, refusal.text[:REFUSAL_LENGTH])
    if not _settle(tx, answer.operation_id, result=None if refusal is not None else answer.result, refusal=refusal):
        return None
    return replace(known, pending=False, result=None if refusal is not None else answer.result, refusal=refusal)


def progress(tx: Tx, host_id: int, operation_id: str, percent: int, text: str) -> None:
    """Note how far a pending operation is."""
    tx.execute(
        update(host_operation)
        .where(
            host_operation.c.operation_id == operation_id,
            host_operation.c.host_id == host_id,
            host_operation.c.pending == 1,
        )
        .values(percent=max(0, min(100, percent)), progress=text[:PROGRESS_LENGTH])
    )


def pending_count(tx: Tx) -> int:
    """How many operations wait for an answer."""
    return int(tx.scalar(select(func.count()).select_from(host_operation).where(host_operation.c.pending == 1)))


def _settle(tx: Tx, operation_id: str, *, result: AnyResult | None, refusal: Refusal | None) -> bool:
    values = {
        "new_result": None if result is None else _encode(result).decode(),
        "new_refusal": None if refusal is None else _encode(refusal).decode(),
    }
    return _SETTLING.changed(tx, operation_id=operation_id, new_answered_at=tx.now, **values) == 1


_SETTLING = Prepared(
    update(host_operation)
    .where(host_operation.c.operation_id == bindparam("operation_id"), host_operation.c.pending == 1)
    .values(
        pending=None,
        result=bindparam("new_result"),
        refusal=bindparam("new_refusal"),
        answered_at=bindparam("new_answered_at"),
    )
)


def _operation(row: RowMapping) -> HostOperation:
    return HostOperation(
        id=row["id"],
        operation_id=row["operation_id"],
        host_id=row["host_id"],
        queue=row["queue"],
        kind=row["kind"],
        job_id=row["job_id"],
        percent=row["percent"],
        progress=row["progress"],
        pending=row["pending"] == 1,
        created_at=row["created_at"],
        deadline_at=row["deadline_at"],
        result=None if row["result"] is None else _results.decode(row["result"]),
        refusal=None if row["refusal"] is None else _refusals.decode(row["refusal"]),
    )
