"""What hosts hold against what the database believes: strays are ended, guests that stopped by themselves are noted.

A guest that a job holds is left to its job. Only lives are compared: of an older epoch nothing is believed.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from sqlalchemy import RowMapping, Select, func, or_, select

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import incarnation
from pileus.server.db.queries import vm as vms
from pileus.server.db.queries.incarnation import Life
from pileus.server.db.tables.host import host, host_operation
from pileus.server.db.tables.job import job
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.host import HostState
from pileus.server.domain.vm import VM, LifeState, VmKind, VmState
from pileus.server.hosts import operations
from pileus.server.workflows.router_lost import lost
from pileus.server.workflows.vm_record import stopped
from pileus.server.workflows.vm_spec import queue_of, stop
from pileus.wire.messages import VmChange, VmSeen
from pileus.wire.operations import (
    AnyOperation,
    DeleteImage,
    DeleteVolume,
    Reason,
    RebootVm,
    Refusal,
    StartVm,
    StopRouter,
    StopVm,
)

log = structlog.get_logger()

_GONE = (HostState.DOWN, HostState.REMOVED)


def inventory(tx: Tx, host_id: int, seen: Iterable[VmSeen]) -> None:
    """Compare everything that a host holds (told at connect) with the lives it should hold."""
    lives = {life.vm_id: life for life in incarnation.on_host(tx, host_id)}
    there: set[int] = set()
    for each in seen:
        row = rows.one(tx, vm, uuid=each.uuid)
        life = lives.get(row["id"]) if row is not None else None
        if life is None or life.epoch != each.epoch:
            # A life planned by an open job may have begun unseen; it is in `lives`, so this one is not its.
            _end_stray(tx, host_id, each)
        elif each.running:
            there.add(life.vm_id)
    for life in lives.values():
        if life.vm_id not in there:
            _missing(tx, life)


def inventories(tx: Tx, seen: Sequence[tuple[int, Sequence[VmSeen]]]) -> None:
    """`inventory` of some hundreds of hosts; those where nothing is and nothing should be cost nothing."""
    living = incarnation.hosts_with_lives(tx, [host_id for host_id, _ in seen])
    for host_id, each in seen:
        if each or host_id in living:
            inventory(tx, host_id, each)


def happened(tx: Tx, host_id: int, *, uuid: str, epoch: int, change: VmChange) -> None:
    """A guest or router changed without having been asked; ignored when a job holds it or the epoch is not current."""
    if change not in (VmChange.STOPPED, VmChange.CRASHED):
        return
    row = rows.one(tx, vm, uuid=uuid)
    if row is None:
        return
    life = incarnation.current(tx, row["id"])
    if life is None or life.host_id != host_id or life.epoch != epoch:
        return
    _missing(tx, life, why="it crashed" if change is VmChange.CRASHED else "it was shut down from inside")


def finish_endings(tx: Tx) -> int:
    """See to the end of lives that no job ends any more: ask their hosts, and note what they answered.

    Returns how many are over now. Called from time to time by the reconciler `vm-sync`.
    """
    ended = 0
    for life in incarnation.in_state(tx, LifeState.ENDING):
        row = vms.by_id(tx, life.vm_id)
        if row["kind"] == VmKind.USER and not vms.has_open_job(tx, row["id"]) and _is_ended(tx, row, life):
            ended += incarnation.over(tx, life)
    return ended


def clear_away_again(tx: Tx) -> int:
    """Ask hosts once more to end what they refused to end and no job waits for: strays, lost routers, given up lives,
    and what was to be stopped or deleted on a host that was down when its job ended.

    Returns how many were asked. Called from time to time by the reconciler `vm-sync`.
    """
    asked = 0
    for operation_id in _REFUSED.scalars(tx):
        known = operations.by_id(tx, operation_id)
        first, _, times = operation_id.partition("~")
        again = f"{first}~{int(times or 0) + 1}"
        if known is None or known.refusal is None or known.refusal.reason is Reason.STALE_EPOCH:
            continue
        if operations.by_id(tx, again) is not None or tx.scalar(_state_of(known.host_id)) in (None, HostState.REMOVED):
            continue
        order = operations.body_of(tx, known)
        operations.request(tx, known.host_id, order, operation_id=again, queue=known.queue, job_id=known.job_id)
        asked += 1
    return asked


_CLEARINGS = ("abandon", "gone", "lost", "stray")
"""What the names of such operations begin with."""

_NEWEST = 20_000
"""So many operations are looked at: an older clearing waits for its host's next inventory."""

_REFUSED = Prepared(
    select(host_operation.c.operation_id)
    .select_from(host_operation.outerjoin(job, job.c.id == host_operation.c.job_id))
    .where(host_operation.c.pending.is_(None), host_operation.c.refusal.is_not(None))
    .where(
        or_(
            *(host_operation.c.operation_id.like(f"{prefix}.%") for prefix in _CLEARINGS),
            # To its job it was gone with its host. No other file ever gets this name, no later life this epoch.
            host_operation.c.kind.in_([each.__name__ for each in (DeleteVolume, DeleteImage, StopVm, StopRouter)])
            & (host_operation.c.answered_at >= job.c.completed_at),
        )
    )
    .where(host_operation.c.id > select(func.max(host_operation.c.id) - _NEWEST).scalar_subquery())
    .order_by(host_operation.c.id)
)


def _state_of(host_id: int) -> Select[Any]:
    return select(host.c.state).where(host.c.id == host_id)


def _is_ended(tx: Tx, row: RowMapping, life: Life) -> bool:
    """Whether the host has said that the life is over, or is given up; asks it if nobody has."""
    if tx.scalar(_state_of(life.host_id)) in _GONE:
        return True
    last = tx.scalar(
        select(host_operation.c.operation_id)
        .where(host_operation.c.operation_id.like(f"end.{row['uuid']}.{life.epoch}.%"))
        .order_by(host_operation.c.id.desc())
        .limit(1)
    )
    answer = operations.answer_of(tx, last) if last is not None else None
    if last is None or (isinstance(answer, Refusal) and answer.reason is not Reason.STALE_EPOCH):
        _request_stop(tx, life.host_id, row, life.epoch, f"end.{row['uuid']}.{life.epoch}.{tx.now}")
        return False
    return answer is not None


def _missing(tx: Tx, life: Life, why: str = "its host does not run it any more") -> None:
    """A life that is not there: over, unless its job is about to begin or end it."""
    row = vms.by_id(tx, life.vm_id)
    if row["kind"] != VmKind.USER:
        lost(tx, life.vm_id, epoch=life.epoch, why=why)
        return
    if vms.has_open_job(tx, life.vm_id):
        if life.state is LifeState.PLANNED:
            # It began and ended before the job that starts it has looked: to that job the start has failed.
            operations.gainsay(tx, life.host_id, life.job_id, StartVm.__name__, queue_of(row), why)
        else:
            # It rebooted and ended before the job has looked: to that job the reboot has failed. It starts it again.
            for job_id in vms.open_jobs_on(tx, life.vm_id):
                operations.gainsay(tx, life.host_id, job_id, RebootVm.__name__, queue_of(row), why)
        return
    if life.state is LifeState.LIVE:
        # What is left of it on the host (a definition, bridges) goes too.
        _request_stop(tx, life.host_id, row, life.epoch, f"gone.{row['uuid']}.{life.epoch}.{tx.now}")
    incarnation.over(tx, life)
    if transition(tx, vm, life.vm_id, VM, VmState.STOPPED, frm=VmState.RUNNING):
        log.warning("guest stopped by itself", vm=row["instance_name"], host=life.host_id, why=why)
        stopped(tx, row, why)


def _end_stray(tx: Tx, host_id: int, seen: VmSeen) -> None:
    queue = f"router:{seen.name}" if seen.router else f"vm:{seen.name}"
    asked = select(host_operation.c.id).where(
        host_operation.c.pending == 1,
        host_operation.c.host_id == host_id,
        host_operation.c.queue == queue,
        host_operation.c.kind == (StopRouter.__name__ if seen.router else StopVm.__name__),
    )
    if tx.scalar(asked.limit(1)) is not None:
        return
    order: AnyOperation
    if seen.router:
        order = StopRouter(seen.name, seen.uuid, seen.epoch)
    else:
        order = StopVm(seen.name, seen.uuid, seen.epoch, forced=True)
    log.warning("stray guest is ended", name=seen.name, epoch=seen.epoch, host=host_id)
    operations.request(tx, host_id, order, operation_id=f"stray.{seen.uuid}.{seen.epoch}.{tx.now}", queue=queue)


def _request_stop(tx: Tx, host_id: int, row: RowMapping, epoch: int, operation_id: str) -> None:
    operations.request(tx, host_id, stop(row, epoch, forced=True), operation_id=operation_id, queue=queue_of(row))
