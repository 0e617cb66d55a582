"""Virtual routers: a `vm` row each, its current life, and what the API shows of them."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Select, and_, bindparam, select, update

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.seed import ROUTER_OFFERING
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import network_config, nic
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.transaction import Tx
from pileus.server.domain.host import HostState
from pileus.server.domain.vm import LifeState, VmKind, VmState, router_name


@dataclass(frozen=True)
class Life:
    """The current life of a router on a host."""

    id: int
    host_id: int
    epoch: int
    state: LifeState
    job_id: int | None
    cpu_mhz: int
    ram_mib: int
    host_state: HostState

    @property
    def on_dead_host(self) -> bool:
        """Whether its host is given up."""
        return self.host_state in (HostState.DOWN, HostState.REMOVED)


@dataclass(frozen=True)
class Router:
    """A virtual router of a network. `cpu_mhz` and `ram_mib` are what a new life of it claims.

    `template_id` is what its current life boots from, or its last one did; None in a namespace.
    """

    id: int
    uuid: str
    name: str
    network_id: int
    zone_id: int
    account_id: int
    domain_id: int
    state: VmState
    epoch: int
    live: bool
    cpus: int
    cpu_mhz: int
    ram_mib: int
    template_id: int | None
    life: Life | None

    @property
    def queue(self) -> str:
        """The queue of everything asked about this router on a host."""
        return f"router:{self.name}"

    @property
    def runs(self) -> bool:
        """Whether it does its work, as far as anybody knows."""
        if self.state is not VmState.RUNNING or self.life is None:
            return False
        return self.life.state is LifeState.LIVE and not self.life.on_dead_host


def of_network(tx: Tx, network_id: int) -> Router | None:
    """The router of a network, or None."""
    row = _OF_NETWORK.one(tx, the_network_id=network_id)
    return None if row is None else _router(row)


def by_id(tx: Tx, vm_id: int) -> Router | None:
    """The router with this `vm` row, as long as it is its network's router; None otherwise."""
    row = _BY_ID.one(tx, the_id=vm_id)
    return None if row is None else _router(row)


def network_of(tx: Tx, vm_id: int) -> int | None:
    """The guest network a router row was made for, whether or not it still serves it."""
    first = select(nic.c.network_id).where(nic.c.vm_id == vm_id, nic.c.device_id == 0).order_by(nic.c.id).limit(1)
    found = tx.scalar(first)
    return None if found is None else int(found)


def add(tx: Tx, *, account_id: int, domain_id: int, zone_id: int, hypervisor: str) -> int:
    """Insert a stopped router; its name follows from its key."""
    offering = rows.one(tx, service_offering, name=ROUTER_OFFERING, live=1)
    assert offering is not None  # noqa: S101 (seeded)
    vm_id = rows.add(
        tx,
        vm,
        kind=str(VmKind.ROUTER),
        name="router",
        account_id=account_id,
        domain_id=domain_id,
        zone_id=zone_id,
        state=str(VmState.STOPPED),
        service_offering_id=offering["id"],
        hypervisor=hypervisor,
        vnc_password="",
        ha=1,
        created_at=tx.now,
    )
    name = router_name(vm_id)
    rows.change(tx, vm, {"id": vm_id}, name=name, instance_name=name, display_name=name)
    return vm_id


def change(tx: Tx, vm_id: int, **values: Any) -> None:
    """Set columns of a router."""
    tx.execute(update(vm).where(vm.c.id == vm_id).values(**values))


def remove(tx: Tx, vm_id: int) -> None:
    """Take a stopped router and its cards out of use."""
    tx.execute(update(nic).where(nic.c.vm_id == vm_id, nic.c.live == 1).values(live=None, removed_at=tx.now))
    tx.execute(
        update(vm)
        .where(vm.c.id == vm_id, vm.c.live == 1)
        .values(live=None, removed_at=tx.now, state=str(VmState.EXPUNGING), host_id=None)
    )


def hypervisor_of(tx: Tx, zone_id: int) -> str:
    """The hypervisor of the zone's hosts ("KVM" while it has none)."""
    return str(_HYPERVISOR.scalar(tx, the_zone_id=zone_id) or "KVM")


_HYPERVISOR = Prepared(
    select(host.c.hypervisor)
    .where(host.c.live == 1, host.c.zone_id == bindparam("the_zone_id"), host.c.kind == "Routing")
    .order_by(host.c.id)
    .limit(1)
)


def _query() -> Select[Any]:
    current = and_(vm_incarnation.c.vm_id == vm.c.id, vm_incarnation.c.current == 1)
    joined = (
        vm.join(network_config, network_config.c.router_id == vm.c.id)
        .join(service_offering, service_offering.c.id == vm.c.service_offering_id)
        .outerjoin(vm_incarnation, current)
        .outerjoin(host, host.c.id == vm_incarnation.c.host_id)
    )
    return select(
        vm,
        network_config.c.network_id,
        service_offering.c.cpus,
        service_offering.c.cpu_mhz.label("offered_cpu_mhz"),
        service_offering.c.ram_mib.label("offered_ram_mib"),
        vm_incarnation.c.id.label("life_id"),
        vm_incarnation.c.host_id.label("life_host_id"),
        vm_incarnation.c.epoch.label("life_epoch"),
        vm_incarnation.c.state.label("life_state"),
        vm_incarnation.c.job_id.label("life_job_id"),
        vm_incarnation.c.cpu_mhz.label("life_cpu_mhz"),
        vm_incarnation.c.ram_mib.label("life_ram_mib"),
        host.c.state.label("host_state"),
    ).select_from(joined)


_OF_NETWORK = Prepared(_query().where(network_config.c.network_id == bindparam("the_network_id")))

_BY_ID = Prepared(_query().where(vm.c.id == bindparam("the_id")))


def _router(row: RowMapping) -> Router:
    life = None
    if row["life_id"] is not None:
        life = Life(
            id=row["life_id"],
            host_id=row["life_host_id"],
            epoch=row["life_epoch"],
            state=LifeState(row["life_state"]),
            job_id=row["life_job_id"],
            cpu_mhz=row["life_cpu_mhz"],
            ram_mib=row["life_ram_mib"],
            host_state=HostState(row["host_state"]),
        )
    return Router(
        id=row["id"],
        uuid=row["uuid"],
        name=row["instance_name"],
        network_id=row["network_id"],
        zone_id=row["zone_id"],
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        state=VmState(row["state"]),
        epoch=row["epoch"],
        live=bool(row["live"]),
        cpus=row["cpus"],
        cpu_mhz=row["offered_cpu_mhz"],
        ram_mib=row["offered_ram_mib"],
        template_id=row["template_id"],
        life=life,
    )
