"""Room on hosts and pools: claimed by guarded UPDATE, given back, recounted."""

from dataclasses import dataclass

from sqlalchemy import BigInteger, ColumnElement, ScalarSelect, bindparam, func, or_, select, update

from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.host import host, host_capacity, storage_pool
from pileus.server.db.tables.vm import vm_incarnation
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import HostState
from pileus.server.domain.storage import PoolState
from pileus.wire.messages import HostKind
from pileus.wire.places import PoolKind


def claim_host(tx: Tx, host_id: int, *, cpu_mhz: int, ram_mib: int) -> bool:
    """Take CPU (MHz over all cores) and memory of a host that is up; False when there is not that much."""
    return _CLAIM_HOST.changed(tx, the_id=host_id, cpu_mhz=cpu_mhz, ram_mib=ram_mib) == 1


def release_host(tx: Tx, host_id: int, *, cpu_mhz: int, ram_mib: int) -> None:
    """Give back what `claim_host` took. Whoever ends an incarnation calls it once."""
    _RELEASE_HOST.changed(tx, the_id=host_id, cpu_mhz=cpu_mhz, ram_mib=ram_mib)


def _host(cpu: ColumnElement[int], ram: ColumnElement[int], *when: ColumnElement[bool]) -> Prepared:
    mine = update(host_capacity).where(host_capacity.c.host_id == bindparam("the_id"), *when)
    return Prepared(mine.values(cpu_used_mhz=cpu, ram_used_mib=ram))


_CPU, _RAM = bindparam("cpu_mhz", type_=BigInteger), bindparam("ram_mib", type_=BigInteger)

_UP = select(host.c.id).where(host.c.id == host_capacity.c.host_id, host.c.live == 1, host.c.state == str(HostState.UP))

_CLAIM_HOST = _host(
    host_capacity.c.cpu_used_mhz + _CPU,
    host_capacity.c.ram_used_mib + _RAM,
    _UP.exists(),
    host_capacity.c.cpu_used_mhz + _CPU <= host_capacity.c.cpu_total_mhz,
    host_capacity.c.ram_used_mib + _RAM <= host_capacity.c.ram_total_mib,
)

_RELEASE_HOST = _host(
    host_capacity.c.cpu_used_mhz - _CPU,
    host_capacity.c.ram_used_mib - _RAM,
    host_capacity.c.cpu_used_mhz >= _CPU,
    host_capacity.c.ram_used_mib >= _RAM,
)


def claim_pool(tx: Tx, pool_id: int, size_bytes: int) -> bool:
    """Take space of a pool that is up; False when there is not that much."""
    return _CLAIM_POOL.changed(tx, the_id=pool_id, size=size_bytes) == 1


_CLAIMED = storage_pool.c.allocated_bytes + bindparam("size", type_=BigInteger)

_CLAIM_POOL = Prepared(
    update(storage_pool)
    .where(
        storage_pool.c.id == bindparam("the_id"),
        storage_pool.c.live == 1,
        storage_pool.c.state == str(PoolState.UP),
        storage_pool.c.allocatable_bytes >= _CLAIMED,
    )
    .values(allocated_bytes=_CLAIMED)
)


def release_pool(tx: Tx, pool_id: int, size_bytes: int) -> None:
    """Give back what `claim_pool` took."""
    statement = update(storage_pool).where(storage_pool.c.id == pool_id, storage_pool.c.allocated_bytes >= size_bytes)
    tx.execute(statement.values(allocated_bytes=storage_pool.c.allocated_bytes - size_bytes))


def provision_hosts(tx: Tx, factor: float) -> int:
    """Make what guests may claim of every host its CPU times the factor. Returns how many hosts had other totals.

    What is claimed stays claimed: with a smaller factor, a host may have more claimed than it may give.
    """
    physical = host.c.cpus * host.c.cpu_mhz
    rows = tx.all(
        select(host.c.id, physical.label("mhz"))
        .join(host_capacity, host_capacity.c.host_id == host.c.id)
        .where(host.c.live == 1, host.c.kind == str(HostKind.ROUTING), host.c.cpus > 0)
        .where(host_capacity.c.cpu_total_mhz > 0, func.abs(host_capacity.c.cpu_total_mhz - physical * factor) >= 1)
    )
    for row in rows:
        changed = update(host_capacity).where(host_capacity.c.host_id == row["id"])
        tx.execute(changed.values(cpu_total_mhz=int(row["mhz"] * factor)))
    return len(rows)


def provision_pools(tx: Tx, factor: float) -> int:
    """As `provision_hosts`, for the space of pools on the network: only these are over-provisioned."""
    size = storage_pool.c.capacity_bytes
    rows = tx.all(
        select(storage_pool.c.id, size).where(
            storage_pool.c.live == 1,
            storage_pool.c.kind == str(PoolKind.NETWORK_FILESYSTEM),
            storage_pool.c.allocatable_bytes > 0,
            func.abs(storage_pool.c.allocatable_bytes - size * factor) >= 1,
        )
    )
    for row in rows:
        changed = update(storage_pool).where(storage_pool.c.id == row["id"])
        tx.execute(changed.values(allocatable_bytes=int(row["capacity_bytes"] * factor)))
    return len(rows)


@dataclass(frozen=True)
class Drift:
    """A counter that disagreed with the rows it counts, and was corrected."""

    subject: str
    counted: tuple[int, ...]
    stood: tuple[int, ...]


def recount_hosts(tx: Tx) -> list[Drift]:
    """Make every host's claims the sum over its current incarnations. Returns what was wrong."""
    cpu, ram = _held(vm_incarnation.c.cpu_mhz), _held(vm_incarnation.c.ram_mib)
    used = (host_capacity.c.cpu_used_mhz, host_capacity.c.ram_used_mib)
    wrong = or_(used[0] != cpu, used[1] != ram)
    rows = tx.all(select(host_capacity.c.host_id, *used, cpu.label("cpu"), ram.label("ram")).where(wrong))
    for row in rows:
        tx.execute(
            update(host_capacity)
            .where(host_capacity.c.host_id == row["host_id"])
            .values(cpu_used_mhz=cpu, ram_used_mib=ram)
        )
    return [
        Drift(f"host:{row['host_id']}", (row["cpu"], row["ram"]), (row["cpu_used_mhz"], row["ram_used_mib"]))
        for row in rows
    ]


def recount_pools(tx: Tx) -> list[Drift]:
    """Make every live pool's allocation the sum over its live volumes. Returns what was wrong."""
    sizes = (
        select(func.coalesce(func.sum(volume.c.size_bytes), 0))
        .where(volume.c.live == 1, volume.c.pool_id == storage_pool.c.id)
        .scalar_subquery()
    )
    rows = tx.all(
        select(storage_pool.c.id, storage_pool.c.allocated_bytes, sizes.label("counted")).where(
            storage_pool.c.live == 1, storage_pool.c.allocated_bytes != sizes
        )
    )
    for row in rows:
        tx.execute(update(storage_pool).where(storage_pool.c.id == row["id"]).values(allocated_bytes=sizes))
    return [Drift(f"pool:{row['id']}", (int(row["counted"]),), (row["allocated_bytes"],)) for row in rows]


def _held(column: ColumnElement[int]) -> ScalarSelect[int]:
    return (
        select(func.coalesce(func.sum(column), 0))
        .where(vm_incarnation.c.current == 1, vm_incarnation.c.host_id == host_capacity.c.host_id)
        .scalar_subquery()
    )
