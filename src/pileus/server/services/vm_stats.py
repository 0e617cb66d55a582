"""Load of hosts and guests, from the reports of hosts. The CPU load of a guest is the growth of its CPU time."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select, update

from pileus.server.db.tables.host import host, host_stats
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.vm import vm, vm_stats
from pileus.server.db.transaction import Tx
from pileus.wire.messages import HostStats, VmStats


def reported(tx: Tx, stats: HostStats) -> None:
    """Store what a host said of itself and of its guests; guests that do not live there are left out."""
    host_id = tx.scalar(select(host.c.id).where(host.c.uuid == stats.uuid, host.c.live == 1))
    if host_id is not None:
        reported_all(tx, [(host_id, stats)])


def reported_all(tx: Tx, reports: Sequence[tuple[int, HostStats]]) -> None:
    """`reported` of some hundreds of hosts, given by id."""
    known = select(host_stats.c.host_id).where(host_stats.c.host_id.in_([host_id for host_id, _ in reports]))
    there = {row["host_id"] for row in tx.all(known)}
    new = [host_id for host_id, _ in reports if host_id not in there]
    if new:
        tx.execute(insert(host_stats), [{"host_id": host_id, "taken_at": tx.now} for host_id in new])
    tx.execute(_OF_HOST, [{"of": host_id, **_of_host(tx, stats)} for host_id, stats in reports])
    told = {(host_id, each.name): each for host_id, stats in reports for each in stats.vms}
    if not told:
        return
    here = (
        select(
            vm.c.id,
            vm.c.host_id,
            vm.c.instance_name,
            service_offering.c.cpus,
            vm_stats.c.cpu_seconds,
            vm_stats.c.taken_at,
        )
        .select_from(
            vm.join(service_offering, service_offering.c.id == vm.c.service_offering_id).outerjoin(
                vm_stats, vm_stats.c.vm_id == vm.c.id
            )
        )
        .where(vm.c.live == 1, vm.c.host_id.in_(sorted({host_id for host_id, _ in told})))
    )
    for row in tx.all(here):
        each = told.get((row["host_id"], row["instance_name"]))
        if each is None:
            continue
        used = None
        if row["taken_at"] is not None:
            used = percent(each, row["cpu_seconds"], seconds=(tx.now - row["taken_at"]) / 1000, cpus=row["cpus"])
        _store(tx, row["id"], each, used, known=row["taken_at"] is not None)


_OF_HOST_COLUMNS = (
    "cpu_used",
    "memory_used_bytes",
    "load_average",
    "received_bytes",
    "sent_bytes",
    "storage_total_bytes",
    "storage_used_bytes",
    "taken_at",
)

_OF_HOST = (
    update(host_stats)
    .where(host_stats.c.host_id == bindparam("of"))
    .values({name: bindparam(name) for name in _OF_HOST_COLUMNS})
)


def _of_host(tx: Tx, stats: HostStats) -> dict[str, Any]:
    values = {name: getattr(stats, name) for name in _OF_HOST_COLUMNS if name != "taken_at"}
    return {**values, "taken_at": tx.now}


def percent(now: VmStats, before_cpu_seconds: float, *, seconds: float, cpus: int) -> float | None:
    """Load of a guest in percent of all its CPUs since the last report; None when its counter began anew."""
    if seconds <= 0 or now.cpu_seconds < before_cpu_seconds:
        return None
    return min(100.0, 100.0 * (now.cpu_seconds - before_cpu_seconds) / (seconds * max(1, cpus)))


def _store(tx: Tx, vm_id: int, stats: VmStats, used: float | None, *, known: bool) -> None:
    values = {
        "cpu_used": used or 0.0,
        "cpu_seconds": stats.cpu_seconds,
        "received_bytes": stats.received_bytes,
        "sent_bytes": stats.sent_bytes,
        "taken_at": tx.now,
    }
    if known:
        tx.execute(update(vm_stats).where(vm_stats.c.vm_id == vm_id).values(**values))
    else:
        tx.execute(insert(vm_stats).values(vm_id=vm_id, **values))
