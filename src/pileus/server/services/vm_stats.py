"""Load of hosts and guests, from the reports of hosts. The CPU load of a guest is the growth of its CPU time."""

from sqlalchemy import insert, select, update

from pileus.server.db.tables.host import host, host_stats
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.vm import vm, vm_stats
from pileus.server.db.transaction import Tx
from pileus.wire.messages import HostStats, VmStats


def reported(tx: Tx, stats: HostStats) -> None:
    """Store what a host said of itself and of its guests; guests that do not live there are left out."""
    host_id = tx.scalar(select(host.c.id).where(host.c.uuid == stats.uuid, host.c.live == 1))
    if host_id is None:
        return
    of_host = {
        "cpu_used": stats.cpu_used,
        "memory_used_bytes": stats.memory_used_bytes,
        "load_average": stats.load_average,
        "received_bytes": stats.received_bytes,
        "sent_bytes": stats.sent_bytes,
        "storage_total_bytes": stats.storage_total_bytes,
        "storage_used_bytes": stats.storage_used_bytes,
        "taken_at": tx.now,
    }
    if tx.execute(update(host_stats).where(host_stats.c.host_id == host_id).values(**of_host)).rowcount == 0:
        tx.execute(insert(host_stats).values(host_id=host_id, **of_host))
    here = (
        select(
            vm.c.id,
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
        .where(vm.c.live == 1, vm.c.host_id == host_id)
    )
    told = {each.name: each for each in stats.vms}
    for row in tx.all(here):
        each = told.get(row["instance_name"])
        if each is None:
            continue
        used = None
        if row["taken_at"] is not None:
            used = percent(each, row["cpu_seconds"], seconds=(tx.now - row["taken_at"]) / 1000, cpus=row["cpus"])
        _store(tx, row["id"], each, used, known=row["taken_at"] is not None)


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
