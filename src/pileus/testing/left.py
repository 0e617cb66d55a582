"""What is in use: in the database, on the simulated hosts, and whether both say the same."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

from sqlalchemy import ColumnElement, Table, func, select

from pileus.agent.backends.simulator import SimulatedHosts, SimulatedStore
from pileus.server.db.tables.account import account, domain, resource_count
from pileus.server.db.tables.host import host, host_capacity, host_operation, storage_pool
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import network, network_config, nic, pod_ip, public_ip, vlan_ip_range
from pileus.server.db.tables.place import zone_vnet
from pileus.server.db.tables.template import template, template_copy, template_on_pool
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Resource
from pileus.server.domain.network import IpState, NetworkState
from pileus.server.domain.storage import CopyState, VolumeState
from pileus.server.domain.vm import LifeState, VmKind, VmState


@dataclass(frozen=True)
class Left:
    """Everything that costs somebody something, as sorted facts; two are compared field by field."""

    guests: tuple[str, ...]
    volumes: tuple[str, ...]
    bridges: tuple[str, ...]
    capacity: tuple[str, ...]
    pools: tuple[str, ...]
    vnets: tuple[str, ...]
    addresses: tuple[str, ...]
    networks: tuple[str, ...]

    def assert_same(self, before: "Left") -> None:
        """Raises AssertionError with what came and what went, kind by kind."""
        wrong = []
        for each in fields(self):
            now, then = Counter(getattr(self, each.name)), Counter(getattr(before, each.name))
            if now != then:
                wrong.append(f"{each.name}: more {sorted(now - then)}, less {sorted(then - now)}")
        _raise(wrong)


def left_in(tx: Tx, hosts: SimulatedHosts) -> Left:
    """What is in use now."""
    world = hosts.world
    return Left(
        guests=tuple(sorted(f"{guest.name} on {uuid}" for uuid, guest in world.guests())),
        volumes=tuple(sorted(world.volumes())),
        bridges=tuple(sorted(f"{ref} on {uuid}" for uuid, ref in world.bridges())),
        capacity=_facts(tx, host_capacity, "host_id", "cpu_used_mhz", "ram_used_mib"),
        pools=_facts(tx, storage_pool, "id", "allocated_bytes"),
        vnets=_facts(tx, zone_vnet, "vnet", "network_id", where=zone_vnet.c.network_id.is_not(None)),
        addresses=_facts(tx, public_ip, "address", "state", where=public_ip.c.state != str(IpState.FREE)),
        networks=_facts(tx, network, "id", "state", where=network.c.live == 1),
    )


def assert_quiet(tx: Tx) -> None:
    """No open job, no unanswered operation, no config on its way, nothing in a state that must pass."""
    wrong = [f"open job {row}" for row in _facts(tx, job, "id", "workflow", "phase", where=job.c.open == 1)]
    pending = host_operation.c.pending == 1
    wrong += [f"pending operation {row}" for row in _facts(tx, host_operation, "kind", "operation_id", where=pending)]
    behind = network_config.c.desired > func.max(network_config.c.applied, network_config.c.refused)
    if tx.connection.dialect.name != "sqlite":
        behind = network_config.c.desired > func.greatest(network_config.c.applied, network_config.c.refused)
    undelivered = tx.all(
        select(network_config.c.network_id, network_config.c.desired, network_config.c.applied)
        .join(network, network.c.id == network_config.c.network_id)
        # Without a running router there is nobody to deliver to: the next one starts with the whole config.
        .join(vm, vm.c.id == network_config.c.router_id)
        .where(network.c.live == 1, network.c.state == str(NetworkState.IMPLEMENTED), behind)
        .where(vm.c.state == str(VmState.RUNNING))
    )
    wrong += [f"undelivered config {dict(row)}" for row in undelivered]
    for table, passing in (
        (vm, (VmState.STARTING, VmState.STOPPING, VmState.MIGRATING)),
        (volume, (VolumeState.CREATING, VolumeState.DESTROY)),
        (network, (NetworkState.IMPLEMENTING, NetworkState.SHUTDOWN)),
        (public_ip, (IpState.ALLOCATING, IpState.RELEASING)),
    ):
        where = (table.c.live == 1) & table.c.state.in_([str(state) for state in passing])
        wrong += [f"{table.name} {row} in a passing state" for row in _facts(tx, table, "id", "state", where=where)]
    planned = (vm_incarnation.c.current == 1) & vm_incarnation.c.state.in_([LifeState.PLANNED, LifeState.ENDING])
    wrong += [f"life {row}" for row in _facts(tx, vm_incarnation, "vm_id", "epoch", "state", where=planned)]
    copying = template_on_pool.c.state.in_([str(CopyState.DOWNLOADING), str(CopyState.REMOVING)])
    wrong += [f"template copy {row}" for row in _facts(tx, template_on_pool, "name", "state", where=copying)]
    _raise(wrong)


def assert_consistent(tx: Tx, hosts: SimulatedHosts, stores: Mapping[int, SimulatedStore]) -> None:
    """Database and hosts say the same, counters are the sums of what they count, nothing belongs to nobody."""
    hosts.world.assert_sound()
    hosts.world.assert_bridges_used()
    _raise(
        [
            *guests_amiss(tx, hosts),
            *volumes_amiss(tx, hosts),
            *templates_amiss(tx, hosts),
            *images_amiss(tx, stores),
            *capacity_amiss(tx),
            *counts_amiss(tx),
            *orphans_amiss(tx),
        ]
    )


def guests_amiss(tx: Tx, hosts: SimulatedHosts) -> list[str]:
    """Lives that should be and guests that are, where they differ."""
    rows = tx.all(
        select(host.c.uuid.label("host"), vm.c.instance_name, vm_incarnation.c.epoch)
        .join(vm, vm.c.id == vm_incarnation.c.vm_id)
        .join(host, host.c.id == vm_incarnation.c.host_id)
        .where(vm_incarnation.c.current == 1, vm_incarnation.c.state == str(LifeState.LIVE))
    )
    known = {f"{row['instance_name']} epoch {row['epoch']} on {row['host']}" for row in rows}
    there = {f"{guest.name} epoch {guest.epoch} on {uuid}" for uuid, guest in hosts.world.guests() if guest.running}
    off = [f"{guest.name} on {uuid}" for uuid, guest in hosts.world.guests() if not guest.running]
    return [*_both("guest", known, there), *(f"guest {name} lies there switched off" for name in off)]


def volumes_amiss(tx: Tx, hosts: SimulatedHosts) -> list[str]:
    """Volumes of the database and files in pools, where they differ."""
    rows = tx.all(
        select(storage_pool.c.uuid.label("pool"), volume.c.path)
        .join(storage_pool, storage_pool.c.id == volume.c.pool_id)
        .where(volume.c.live == 1, volume.c.path.is_not(None), volume.c.state == str(VolumeState.READY))
    )
    known = {f"{row['path']} in {row['pool']}" for row in rows}
    there = {f"{name} in {uuid}" for uuid, pool in hosts.world.pools.items() for name in pool.volumes}
    return _both("volume", known, there)


def templates_amiss(tx: Tx, hosts: SimulatedHosts) -> list[str]:
    """Templates that should lie on a pool and do not."""
    rows = tx.all(
        select(storage_pool.c.uuid.label("pool"), template_on_pool.c.name)
        .join(storage_pool, storage_pool.c.id == template_on_pool.c.pool_id)
        .where(template_on_pool.c.state == str(CopyState.READY))
    )
    known = {f"{row['name']} in {row['pool']}" for row in rows}
    there = {f"{name} in {uuid}" for uuid, pool in hosts.world.pools.items() for name in pool.templates}
    # A copy whose fetch was given up may lie in the pool: the next fetch finds it. A known one must be there.
    return [f"template {name} is known and not there" for name in sorted(known - there)]


def images_amiss(tx: Tx, stores: Mapping[int, SimulatedStore]) -> list[str]:
    """Images of the database and of secondary storage, where they differ."""
    ready = template_copy.c.state == str(CopyState.READY)
    rows = tx.all(select(template_copy.c.host_id, template_copy.c.name).where(ready))
    known = {f"{row['name']} on storage {row['host_id']}" for row in rows}
    there = {f"{name} on storage {host_id}" for host_id, store in stores.items() for name in store.images}
    # What is being removed may be there still, and so may what failed: the row stays, and both go together.
    going = template_copy.c.state.in_([str(CopyState.REMOVING), str(CopyState.FAILED)])
    removing = tx.all(select(template_copy.c.host_id, template_copy.c.name).where(going))
    there -= {f"{row['name']} on storage {row['host_id']}" for row in removing}
    return _both("image", known, there)


def capacity_amiss(tx: Tx) -> list[str]:
    """Claims on hosts and pools that are not the sum of what holds them."""
    wrong = []
    held = select(
        vm_incarnation.c.host_id,
        func.sum(vm_incarnation.c.cpu_mhz).label("cpu"),
        func.sum(vm_incarnation.c.ram_mib).label("ram"),
    ).where(vm_incarnation.c.current == 1)
    lives = {row["host_id"]: row for row in tx.all(held.group_by(vm_incarnation.c.host_id))}
    for row in tx.all(select(host_capacity)):
        life = lives.get(row["host_id"])
        sums = (int(life["cpu"]), int(life["ram"])) if life is not None else (0, 0)
        claimed = (row["cpu_used_mhz"], row["ram_used_mib"])
        if claimed != sums:
            wrong.append(f"host {row['host_id']} gave away {claimed}, its lives hold {sums}")
    sizes = select(volume.c.pool_id, func.sum(volume.c.size_bytes).label("bytes")).where(volume.c.live == 1)
    taken = {row["pool_id"]: int(row["bytes"]) for row in tx.all(sizes.group_by(volume.c.pool_id))}
    for row in tx.all(select(storage_pool).where(storage_pool.c.live == 1)):
        size = taken.get(row["id"], 0)
        if row["allocated_bytes"] != size:
            wrong.append(f"pool {row['id']} gave away {row['allocated_bytes']} bytes, its volumes take {size}")
    return wrong


def counts_amiss(tx: Tx) -> list[str]:
    """Every account's and domain's count against the rows it counts."""
    parents = {row["id"]: row["parent_id"] for row in tx.all(select(domain.c.id, domain.c.parent_id))}
    home = {row["id"]: row["domain_id"] for row in tx.all(select(account.c.id, account.c.domain_id))}
    counted: Counter[tuple[str, int, int]] = Counter()
    for resource, owner in _owned(tx):
        counted["account", owner, resource] += 1
        above: int | None = home[owner]
        while above is not None:
            counted["domain", above, resource] += 1
            above = parents[above]
    wrong = []
    for row in tx.all(select(resource_count)):
        key = (row["owner"], row["owner_id"], row["resource"])
        if row["used"] != counted.pop(key, 0):
            wrong.append(f"count of {Resource(key[2]).name} of {key[0]} {key[1]} is {row['used']}, rows say otherwise")
    return wrong + [f"{key} has no count" for key in sorted(counted)]


def _owned(tx: Tx) -> list[tuple[int, int]]:
    gone = [str(VmState.DESTROYED), str(VmState.EXPUNGING), str(VmState.ERROR)]
    machines = select(vm.c.account_id).where(vm.c.live == 1, vm.c.kind == str(VmKind.USER), vm.c.state.not_in(gone))
    disks = select(volume.c.account_id).where(volume.c.live == 1)
    # An address of a Direct network comes with its guest and counts for nothing.
    public = select(vlan_ip_range.c.id).where(vlan_ip_range.c.for_virtual_network == 1)
    addresses = select(public_ip.c.account_id).where(
        public_ip.c.live == 1, public_ip.c.account_id.is_not(None), public_ip.c.range_id.in_(public)
    )
    templates = select(template.c.account_id).where(template.c.live == 1)
    found = []
    for resource, statement in (
        (Resource.INSTANCE, machines),
        (Resource.VOLUME, disks),
        (Resource.PUBLIC_IP, addresses),
        (Resource.TEMPLATE, templates),
    ):
        found += [(int(resource), int(owner)) for owner in tx.execute(statement).scalars()]
    return found


def orphans_amiss(tx: Tx) -> list[str]:
    """What belongs to nobody, or to something that is gone."""
    live_vm = select(vm.c.id).where(vm.c.live == 1)
    live_network = select(network.c.id).where(network.c.live == 1)
    taken = public_ip.c.state != str(IpState.FREE)
    current = vm_incarnation.c.current == 1
    # NULL NOT IN an empty set is true: rows that nobody holds are left out by name.
    holder = zone_vnet.c.network_id
    on_network = public_ip.c.network_id
    checks: list[tuple[str, Table, str, ColumnElement[bool]]] = [
        ("card of no machine", nic, "id", (nic.c.live == 1) & nic.c.vm_id.not_in(live_vm)),
        ("card of no network", nic, "id", (nic.c.live == 1) & nic.c.network_id.not_in(live_network)),
        ("life of no machine", vm_incarnation, "id", current & vm_incarnation.c.vm_id.not_in(live_vm)),
        ("vnet of no network", zone_vnet, "vnet", holder.is_not(None) & holder.not_in(live_network)),
        ("address of nobody", public_ip, "address", taken & public_ip.c.account_id.is_(None)),
        ("address of no network", public_ip, "address", on_network.is_not(None) & on_network.not_in(live_network)),
        ("pod address of no machine", pod_ip, "address", pod_ip.c.vm_id.is_not(None) & pod_ip.c.vm_id.not_in(live_vm)),
    ]
    return [f"{what}: {row}" for what, table, key, where in checks for row in _facts(tx, table, key, where=where)]


def _facts(tx: Tx, table: Table, *columns: str, where: ColumnElement[bool] | None = None) -> tuple[str, ...]:
    statement = select(*(table.c[column] for column in columns))
    if where is not None:
        statement = statement.where(where)
    return tuple(sorted(" ".join(str(value) for value in row) for row in tx.execute(statement)))


def _both(what: str, known: set[str], there: set[str]) -> list[str]:
    return [
        *(f"{what} {name} is known and not there" for name in sorted(known - there)),
        *(f"{what} {name} is there and not known" for name in sorted(there - known)),
    ]


def _raise(wrong: list[str]) -> None:
    if wrong:
        raise AssertionError("\n".join(wrong))
