"""What is in use: in the database, on the simulated hosts, and whether both say the same."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, Table, func, select

from pileus.agent.backends.simulator import SimulatedHosts, SimulatedStore
from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.rule import KINDS
from pileus.server.db.tables.account import account, domain, resource_count
from pileus.server.db.tables.host import host, host_capacity, host_operation, storage_pool
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import network, network_config, nic, pod_ip, public_ip, vlan_ip_range
from pileus.server.db.tables.place import zone_vnet
from pileus.server.db.tables.rule import firewall_rule, load_balancer_member, load_balancer_rule
from pileus.server.db.tables.template import template, template_copy, template_on_pool
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.tables.volume import volume
from pileus.server.db.tables.vpn import vpn_user
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Resource
from pileus.server.domain.network import IpState, NetworkState, RuleState
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
    rules: tuple[str, ...]

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
        capacity=_facts(tx, _CAPACITY),
        pools=_facts(tx, _POOLS),
        vnets=_facts(tx, _VNETS),
        addresses=_facts(tx, _ADDRESSES),
        networks=_facts(tx, _NETWORKS),
        rules=(
            *(f"{table.name} {fact}" for table, live in _RULES.items() for fact in _facts(tx, live)),
            *_facts(tx, _STATIC_NATS),
        ),
    )


_CAPACITY = Prepared(select(host_capacity.c.host_id, host_capacity.c.cpu_used_mhz, host_capacity.c.ram_used_mib))
_POOLS = Prepared(select(storage_pool.c.id, storage_pool.c.allocated_bytes))
_VNETS = Prepared(select(zone_vnet.c.vnet, zone_vnet.c.network_id).where(zone_vnet.c.network_id.is_not(None)))
_ADDRESSES = Prepared(select(public_ip.c.address, public_ip.c.state).where(public_ip.c.state != str(IpState.FREE)))
_NETWORKS = Prepared(select(network.c.id, network.c.state).where(network.c.live == 1))

_STATIC_NATS = Prepared(select(public_ip.c.address, public_ip.c.vm_id).where(public_ip.c.is_static_nat == 1))
_RULES = {
    table: Prepared(select(table.c.id, table.c.state).where(table.c.live == 1))
    for table in (*(kind.table for kind in KINDS.values()), load_balancer_member, vpn_user)
}


def assert_quiet(tx: Tx) -> None:
    """No open job, no unanswered operation, no config on its way, nothing in a state that must pass."""
    wrong = [f"undelivered config {dict(row)}" for row in _UNDELIVERED.all(tx)]
    for what, statement in _UNDER_WAY:
        wrong += [f"{what} {row}" for row in _facts(tx, statement)]
    _raise(wrong)


_UNDELIVERED = Prepared(
    select(network_config.c.network_id, network_config.c.desired, network_config.c.applied)
    .join(network, network.c.id == network_config.c.network_id)
    # Without a running router there is nobody to deliver to: the next one starts with the whole config.
    .join(vm, vm.c.id == network_config.c.router_id)
    .where(network.c.live == 1, network.c.state == str(NetworkState.IMPLEMENTED))
    .where(network_config.c.desired > network_config.c.applied, network_config.c.desired > network_config.c.refused)
    .where(vm.c.state == str(VmState.RUNNING))
)


def _in_states(table: Table, *states: str) -> Prepared:
    passing = table.c.state.in_([str(state) for state in states])
    return Prepared(select(table.c.id, table.c.state).where(table.c.live == 1, passing))


_UNDER_WAY: tuple[tuple[str, Prepared], ...] = (
    ("open job", Prepared(select(job.c.id, job.c.workflow, job.c.phase).where(job.c.open == 1))),
    (
        "pending operation",
        Prepared(select(host_operation.c.kind, host_operation.c.operation_id).where(host_operation.c.pending == 1)),
    ),
    ("guest or router in a passing state", _in_states(vm, VmState.STARTING, VmState.STOPPING, VmState.MIGRATING)),
    ("volume in a passing state", _in_states(volume, VolumeState.CREATING, VolumeState.DESTROY)),
    ("network in a passing state", _in_states(network, NetworkState.IMPLEMENTING, NetworkState.SHUTDOWN)),
    ("address in a passing state", _in_states(public_ip, IpState.ALLOCATING, IpState.RELEASING)),
    *((f"{table.name} in a passing state", _in_states(table, RuleState.ADD, RuleState.REVOKE)) for table in _RULES),
    (
        "life",
        Prepared(
            select(vm_incarnation.c.vm_id, vm_incarnation.c.epoch, vm_incarnation.c.state).where(
                vm_incarnation.c.current == 1,
                vm_incarnation.c.state.in_([str(LifeState.PLANNED), str(LifeState.ENDING)]),
            )
        ),
    ),
    (
        "template copy",
        Prepared(
            select(template_on_pool.c.name, template_on_pool.c.state).where(
                template_on_pool.c.state.in_([str(CopyState.DOWNLOADING), str(CopyState.REMOVING)])
            )
        ),
    ),
)


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
    known = {f"{row['instance_name']} epoch {row['epoch']} on {row['host']}" for row in _LIVES.all(tx)}
    there = {f"{guest.name} epoch {guest.epoch} on {uuid}" for uuid, guest in hosts.world.guests() if guest.running}
    off = [f"{guest.name} on {uuid}" for uuid, guest in hosts.world.guests() if not guest.running]
    return [*_both("guest", known, there), *(f"guest {name} lies there switched off" for name in off)]


_LIVES = Prepared(
    select(host.c.uuid.label("host"), vm.c.instance_name, vm_incarnation.c.epoch)
    .join(vm, vm.c.id == vm_incarnation.c.vm_id)
    .join(host, host.c.id == vm_incarnation.c.host_id)
    .where(vm_incarnation.c.current == 1, vm_incarnation.c.state == str(LifeState.LIVE))
)


def volumes_amiss(tx: Tx, hosts: SimulatedHosts) -> list[str]:
    """Volumes of the database and files in pools, where they differ."""
    known = {f"{row['path']} in {row['pool']}" for row in _FILES.all(tx)}
    there = {f"{name} in {uuid}" for uuid, pool in hosts.world.pools.items() for name in pool.volumes}
    return _both("volume", known, there)


_FILES = Prepared(
    select(storage_pool.c.uuid.label("pool"), volume.c.path)
    .join(storage_pool, storage_pool.c.id == volume.c.pool_id)
    .where(volume.c.live == 1, volume.c.path.is_not(None), volume.c.state == str(VolumeState.READY))
)


def templates_amiss(tx: Tx, hosts: SimulatedHosts) -> list[str]:
    """Templates that should lie on a pool and do not."""
    known = {f"{row['name']} in {row['pool']}" for row in _FETCHED.all(tx)}
    there = {f"{name} in {uuid}" for uuid, pool in hosts.world.pools.items() for name in pool.templates}
    # A copy whose fetch was given up may lie in the pool: the next fetch finds it. A known one must be there.
    return [f"template {name} is known and not there" for name in sorted(known - there)]


_FETCHED = Prepared(
    select(storage_pool.c.uuid.label("pool"), template_on_pool.c.name)
    .join(storage_pool, storage_pool.c.id == template_on_pool.c.pool_id)
    .where(template_on_pool.c.state == str(CopyState.READY))
)


def images_amiss(tx: Tx, stores: Mapping[int, SimulatedStore]) -> list[str]:
    """Images of the database and of secondary storage, where they differ."""
    copies = rows.every(tx, template_copy)
    known = {f"{row['name']} on storage {row['host_id']}" for row in copies if row["state"] == CopyState.READY}
    there = {f"{name} on storage {host_id}" for host_id, store in stores.items() for name in store.images}
    # What is being removed may be there still, and so may what failed: the row stays, and both go together.
    going = (CopyState.REMOVING, CopyState.FAILED)
    there -= {f"{row['name']} on storage {row['host_id']}" for row in copies if row["state"] in going}
    return _both("image", known, there)


def capacity_amiss(tx: Tx) -> list[str]:
    """Claims on hosts and pools that are not the sum of what holds them."""
    wrong = []
    lives = {row["host_id"]: row for row in _HELD.all(tx)}
    for row in rows.every(tx, host_capacity):
        life = lives.get(row["host_id"])
        sums = (int(life["cpu"]), int(life["ram"])) if life is not None else (0, 0)
        claimed = (row["cpu_used_mhz"], row["ram_used_mib"])
        if claimed != sums:
            wrong.append(f"host {row['host_id']} gave away {claimed}, its lives hold {sums}")
    taken = {row["pool_id"]: int(row["bytes"]) for row in _TAKEN.all(tx)}
    for row in rows.every(tx, storage_pool, live=1):
        size = taken.get(row["id"], 0)
        if row["allocated_bytes"] != size:
            wrong.append(f"pool {row['id']} gave away {row['allocated_bytes']} bytes, its volumes take {size}")
    return wrong


_HELD = Prepared(
    select(
        vm_incarnation.c.host_id,
        func.sum(vm_incarnation.c.cpu_mhz).label("cpu"),
        func.sum(vm_incarnation.c.ram_mib).label("ram"),
    )
    .where(vm_incarnation.c.current == 1)
    .group_by(vm_incarnation.c.host_id)
)

_TAKEN = Prepared(
    select(volume.c.pool_id, func.sum(volume.c.size_bytes).label("bytes"))
    .where(volume.c.live == 1)
    .group_by(volume.c.pool_id)
)


def counts_amiss(tx: Tx) -> list[str]:
    """Every account's and domain's count against the rows it counts."""
    parents = dict(_PARENTS.tuples(tx))
    home = dict(_HOMES.tuples(tx))
    counted: Counter[tuple[str, int, int]] = Counter()
    for resource, owner in _owned(tx):
        counted["account", owner, resource] += 1
        above: int | None = home[owner]
        while above is not None:
            counted["domain", above, resource] += 1
            above = parents[above]
    wrong = []
    for row in rows.every(tx, resource_count):
        key = (row["owner"], row["owner_id"], row["resource"])
        if row["used"] != counted.pop(key, 0):
            wrong.append(f"count of {Resource(key[2]).name} of {key[0]} {key[1]} is {row['used']}, rows say otherwise")
    return wrong + [f"{key} has no count" for key in sorted(counted)]


_PARENTS = Prepared(select(domain.c.id, domain.c.parent_id))

_HOMES = Prepared(select(account.c.id, account.c.domain_id))


def _owned(tx: Tx) -> list[tuple[int, int]]:
    found = []
    for resource, statement in _COUNTED.items():
        found += [(int(resource), int(owner)) for owner in statement.scalars(tx)]
    return found


_GONE = [str(VmState.DESTROYED), str(VmState.EXPUNGING), str(VmState.ERROR)]

# An address of a Direct network comes with its guest and counts for nothing.
_PUBLIC = select(vlan_ip_range.c.id).where(vlan_ip_range.c.for_virtual_network == 1)

_COUNTED: Mapping[Resource, Prepared] = {
    Resource.INSTANCE: Prepared(
        select(vm.c.account_id).where(vm.c.live == 1, vm.c.kind == str(VmKind.USER), vm.c.state.not_in(_GONE))
    ),
    Resource.VOLUME: Prepared(select(volume.c.account_id).where(volume.c.live == 1)),
    Resource.PUBLIC_IP: Prepared(
        select(public_ip.c.account_id).where(
            public_ip.c.live == 1, public_ip.c.account_id.is_not(None), public_ip.c.range_id.in_(_PUBLIC)
        )
    ),
    Resource.TEMPLATE: Prepared(select(template.c.account_id).where(template.c.live == 1)),
}


def orphans_amiss(tx: Tx) -> list[str]:
    """What belongs to nobody, or to something that is gone."""
    return [f"{what}: {row}" for what, statement in _ORPHANS for row in _facts(tx, statement)]


_LIVE_VM = select(vm.c.id).where(vm.c.live == 1)
_LIVE_NETWORK = select(network.c.id).where(network.c.live == 1)

_HELD_ADDRESS = select(public_ip.c.id).where(public_ip.c.state != str(IpState.FREE))
_BALANCER = select(load_balancer_rule.c.id).where(load_balancer_rule.c.live == 1)


def _without(key: Column[Any], holder: Column[Any], holders: Select[Any], *where: ColumnElement[bool]) -> Prepared:
    # NULL NOT IN an empty set is true: rows that nobody holds are left out by name.
    return Prepared(select(key).where(*where, holder.is_not(None), holder.not_in(holders)))


_ORPHANS: tuple[tuple[str, Prepared], ...] = (
    ("card of no machine", _without(nic.c.id, nic.c.vm_id, _LIVE_VM, nic.c.live == 1)),
    ("card of no network", _without(nic.c.id, nic.c.network_id, _LIVE_NETWORK, nic.c.live == 1)),
    (
        "life of no machine",
        _without(vm_incarnation.c.id, vm_incarnation.c.vm_id, _LIVE_VM, vm_incarnation.c.current == 1),
    ),
    ("vnet of no network", _without(zone_vnet.c.vnet, zone_vnet.c.network_id, _LIVE_NETWORK)),
    (
        "address of nobody",
        Prepared(
            select(public_ip.c.address).where(public_ip.c.state != str(IpState.FREE), public_ip.c.account_id.is_(None))
        ),
    ),
    ("address of no network", _without(public_ip.c.address, public_ip.c.network_id, _LIVE_NETWORK)),
    *(
        (f"{table.name} of no {column}", _without(table.c.id, table.c[f"{column}_id"], holders, table.c.live == 1))
        for table in _RULES
        for column, holders in (
            ("vm", _LIVE_VM),
            ("network", _LIVE_NETWORK),
            ("public_ip", _HELD_ADDRESS),
            ("rule", _BALANCER),
        )
        if f"{column}_id" in table.c
    ),
    *(
        (
            f"opening of no {kind.noun}",
            _without(
                firewall_rule.c.id,
                firewall_rule.c.opener_id,
                select(kind.table.c.id).where(kind.table.c.live == 1),
                firewall_rule.c.live == 1,
                firewall_rule.c.opener_kind == kind.name,
            ),
        )
        for kind in KINDS.values()
    ),
    ("pod address of no machine", _without(pod_ip.c.address, pod_ip.c.vm_id, _LIVE_VM)),
)


def _facts(tx: Tx, statement: Prepared) -> tuple[str, ...]:
    return tuple(sorted(" ".join(str(value) for value in row) for row in statement.tuples(tx)))


def _both(what: str, known: set[str], there: set[str]) -> list[str]:
    return [
        *(f"{what} {name} is known and not there" for name in sorted(known - there)),
        *(f"{what} {name} is there and not known" for name in sorted(there - known)),
    ]


def _raise(wrong: list[str]) -> None:
    if wrong:
        raise AssertionError("\n".join(wrong))
