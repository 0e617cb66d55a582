"""Lives of guests and routers: one current life per VM, by constraint; each holds capacity of its host until over."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import RowMapping, bindparam, select, update

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import capacity
from pileus.server.db.tables.host import host
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.vm import LIFE, LifeState


@dataclass(frozen=True)
class Life:
    """One life of a VM on one host. `cpu_mhz` (over all cores) and `ram_mib` are what it holds of the host.

    `job_id` is the job that planned it: an undo ends only lives of its own job.
    """

    id: int
    vm_id: int
    host_id: int
    epoch: int
    state: LifeState
    cpu_mhz: int
    ram_mib: int
    job_id: int | None


def current(tx: Tx, vm_id: int) -> Life | None:
    """The life that is not over, planned ones included."""
    row = rows.one(tx, vm_incarnation, vm_id=vm_id, current=1)
    return _life(row) if row is not None else None


def on_host(tx: Tx, host_id: int) -> list[Life]:
    """All lives on a host that are not over."""
    return [_life(row) for row in rows.every(tx, vm_incarnation, current=1, host_id=host_id)]


def hosts_with_lives(tx: Tx, host_ids: Collection[int]) -> set[int]:
    """Those of some hundreds of hosts on which something lives."""
    some = select(vm_incarnation.c.host_id).where(
        vm_incarnation.c.current == 1, vm_incarnation.c.host_id.in_(list(host_ids))
    )
    return {row["host_id"] for row in tx.all(some.distinct())}


def in_state(tx: Tx, state: LifeState) -> list[Life]:
    """All lives in one of the states before OVER."""
    return [_life(row) for row in rows.every(tx, vm_incarnation, current=1, state=str(state))]


def plan(tx: Tx, vm_id: int, *, host_id: int, cpu_mhz: int, ram_mib: int, job_id: int) -> Life:
    """Begin a life in a new epoch. The capacity is claimed already; a second current life breaks a constraint."""
    _NEXT_EPOCH.changed(tx, the_id=vm_id)
    epoch = int(_EPOCH.scalar(tx, the_id=vm_id))
    life_id = rows.add(
        tx,
        vm_incarnation,
        vm_id=vm_id,
        host_id=host_id,
        epoch=epoch,
        state=str(LifeState.PLANNED),
        cpu_mhz=cpu_mhz,
        ram_mib=ram_mib,
        job_id=job_id,
        created_at=tx.now,
    )
    return Life(life_id, vm_id, host_id, epoch, LifeState.PLANNED, cpu_mhz, ram_mib, job_id)


_NEXT_EPOCH = Prepared(update(vm).where(vm.c.id == bindparam("the_id")).values(epoch=vm.c.epoch + 1))

_EPOCH = Prepared(select(vm.c.epoch).where(vm.c.id == bindparam("the_id")))


def live(tx: Tx, life: Life, *, vnc_host: str | None = None, vnc_port: int | None = None) -> bool:
    """Planned → Live: the host says that it runs. From now on lists show the host."""
    told = {"vnc_host": vnc_host, "vnc_port": vnc_port}
    if not transition(tx, vm_incarnation, life.id, LIFE, LifeState.LIVE, frm=LifeState.PLANNED, **told):
        return False
    _SHOWN.changed(tx, the_id=life.vm_id, the_host_id=life.host_id)
    return True


_SHOWN = Prepared(
    update(vm)
    .where(vm.c.id == bindparam("the_id"))
    .values(
        host_id=bindparam("the_host_id"),
        pod_id=select(host.c.pod_id).where(host.c.id == bindparam("the_host_id")).scalar_subquery(),
    )
)


def ending(tx: Tx, life: Life) -> bool:
    """The host is being asked to end it."""
    return transition(tx, vm_incarnation, life.id, LIFE, LifeState.ENDING)


def over(tx: Tx, life: Life) -> bool:
    """It is certain not to run: its capacity goes back to the host. False when it was over already."""
    if not transition(tx, vm_incarnation, life.id, LIFE, LifeState.OVER, current=None, ended_at=tx.now):
        return False
    capacity.release_host(tx, life.host_id, cpu_mhz=life.cpu_mhz, ram_mib=life.ram_mib)
    rows.change(tx, vm, {"id": life.vm_id, "host_id": life.host_id}, host_id=None, last_host_id=life.host_id)
    return True


def _life(row: RowMapping) -> Life:
    return Life(
        row["id"],
        row["vm_id"],
        row["host_id"],
        row["epoch"],
        LifeState(row["state"]),
        row["cpu_mhz"],
        row["ram_mib"],
        row["job_id"],
    )
