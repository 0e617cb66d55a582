"""What must be true of a cloud that was left in peace, whatever happened before: one function per promise.

Each returns what is wrong, in words. They read the database and the simulated hosts, and believe neither alone.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from sqlalchemy import ColumnElement, RowMapping, Table, and_, bindparam, literal_column, select, union_all

from pileus.agent.backends.simulator import SimulatedHosts, SimulatedStore
from pileus.server.api.command import registry
from pileus.server.auth.kinds import KINDS
from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries.domain import INACTIVE
from pileus.server.db.tables import metadata
from pileus.server.db.tables.account import account, domain, resource_count
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host, host_operation
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import (
    network,
    network_config,
    nic,
    public_ip,
    vlan_ip_range,
)
from pileus.server.db.tables.place import zone_vnet
from pileus.server.db.tables.setting import setting_change
from pileus.server.db.tables.template import template_copy, template_on_pool
from pileus.server.db.tables.vm import vm, vm_incarnation
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import UNLIMITED
from pileus.server.domain.host import HostState
from pileus.server.domain.job import Phase
from pileus.server.domain.network import IpState, NetworkState
from pileus.server.domain.storage import CopyState, VolumeState
from pileus.server.domain.vm import VmKind, VmState
from pileus.server.elements import virtual_router
from pileus.server.events import types
from pileus.testing import left
from pileus.testing.simulation.workload import Ack
from pileus.wire.places import Isolation
from pileus.wire.router import fingerprint

UNDO_SECONDS = 900
"""How long the way back may take after a deadline."""


class Scene(Protocol):
    """Where a run took place."""

    @property
    def hosts(self) -> SimulatedHosts: ...

    @property
    def stores(self) -> Mapping[int, SimulatedStore]: ...

    def open_jobs(self) -> list[str]: ...


@dataclass(frozen=True)
class End:
    """A run that is over. `quiet` says that it came to rest; `last_fault_at` is in ms since the epoch."""

    world: Scene
    tx: Tx
    acks: tuple[Ack, ...]
    last_fault_at: int
    quiet: bool


def is_quiet(tx: Tx) -> bool:
    """Nothing is under way."""
    return _AT_WORK.scalar(tx) is None and _ASKED.scalar(tx) is None and not _not_cleaned_up(tx)


def _not_cleaned_up(tx: Tx) -> list[str]:
    """Accounts and domains whose clean-up has not come to its end: one that failed is begun anew after a while."""
    accounts = rows.every(tx, account, live=1, cleanup_required=1)
    going = rows.every(tx, domain, live=1, state=INACTIVE)
    return [
        *(f"account {row['id']} is still being cleaned up" for row in accounts),
        *(f"domain {row['id']} is still being deleted" for row in going),
    ]


_AT_WORK = Prepared(select(job.c.id).where(job.c.open == 1, job.c.phase != str(Phase.STUCK)).limit(1))

_ASKED = Prepared(select(host_operation.c.id).where(host_operation.c.pending == 1).limit(1))


def one_life(end: End) -> list[str]:
    """(1) At most one live incarnation of a VM: in the database and on the hosts."""
    lives = Counter(row["vm_id"] for row in rows.every(end.tx, vm_incarnation, current=1))
    wrong = [f"machine {vm_id} has {n} lives" for vm_id, n in lives.items() if n > 1]
    running = Counter(guest.name for _, guest in end.world.hosts.world.guests() if guest.running)
    return wrong + [f"{name} runs {n} times" for name, n in running.items() if n > 1]


def one_owner(end: End) -> list[str]:
    """(2) No address, VLAN, MAC or volume is owned twice or by nobody."""
    tx = end.tx
    wrong = left.orphans_amiss(tx)
    cards = rows.every(tx, nic, live=1)
    wrong += _twice("address of a network", [(row["network_id"], row["ip"]) for row in cards if row["ip"]])
    wrong += _twice("MAC", [row["mac"] for row in cards if row["mac"]])
    disks = rows.every(tx, volume, live=1)
    wrong += _twice("file", [(row["pool_id"], row["path"]) for row in disks if row["path"]])
    nets = {row["id"]: row for row in rows.every(tx, network, live=1)}
    held = {row["network_id"]: row["vnet"] for row in rows.every(tx, zone_vnet) if row["network_id"] is not None}
    for net in nets.values():
        if not net["specified_vlan"] and net["vnet"] is not None and held.get(net["id"]) != net["vnet"]:
            wrong.append(f"network {net['id']} says VLAN {net['vnet']} and holds {held.get(net['id'])}")
    tagged = [net for net in nets.values() if net["vnet"] is not None]
    wrong += _twice("VLAN", [(net["zone_id"], net["isolation"], net["vnet"]) for net in tagged])
    public = {(row["zone_id"], row["vlan"]) for row in tx.all(select(vlan_ip_range).where(_PUBLIC))}
    for net in tagged:
        if net["isolation"] == Isolation.VLAN and (net["zone_id"], str(net["vnet"])) in public:
            wrong.append(f"VLAN {net['vnet']} is that of network {net['id']} and of public addresses")
    for network_id, vnet in held.items():
        if network_id in nets and nets[network_id]["vnet"] != vnet:
            wrong.append(f"VLAN {vnet} is held for network {network_id}, which says {nets[network_id]['vnet']}")
    for address in rows.every(tx, public_ip, live=1):
        free = address["state"] == IpState.FREE
        if free and (address["account_id"], address["network_id"]) != (None, None):
            wrong.append(f"address {address['address']} is free and owned")
    return wrong + _of_what_is_gone(tx)


_PUBLIC = and_(vlan_ip_range.c.live == 1, vlan_ip_range.c.for_virtual_network == 1)

_OUTLIVED = frozenset({"service_offering", "disk_offering", "network_offering", "template"})
"""Tables whose rows others may name after they are gone: what was made of them stays as it is."""


def _of_what_is_gone(tx: Tx) -> list[str]:
    """What lives and belongs to something that does not."""
    return [f"{row['what']}, which is gone: {row['id']}" for row in _orphans().all(tx)]


@cache
def _orphans() -> Prepared:
    """One statement for all foreign keys between tables whose rows live and end."""
    parts = []
    for table in metadata.sorted_tables:
        for key in (key for key in table.foreign_keys if "live" in table.c):
            owner = key.column.table
            if "live" not in owner.c or owner.name in _OUTLIVED:
                continue
            gone = owner.alias()
            what: ColumnElement[str] = literal_column(f"'{table.name} names by {key.parent.name}'").label("what")
            both = table.join(gone, gone.c.id == key.parent)
            parts.append(select(what, table.c.id).select_from(both).where(table.c.live == 1, gone.c.live.is_(None)))
    return Prepared(union_all(*parts))


_LOWERED = Prepared(
    select(event.c.id)
    .where(event.c.type == types.RESOURCE_LIMIT_UPDATE)
    .union_all(select(setting_change.c.id).where(setting_change.c.name.like("max.account.%")))
    .limit(1)
)
"""Asked of the database: who changed a limit may have got no answer, because the server ended."""


def counts_right(end: End) -> list[str]:
    """(3) Counts equal rows, and stand over a limit only where the limit was lowered."""
    wrong = left.counts_amiss(end.tx)
    if _LOWERED.scalar(end.tx) is not None:
        return wrong
    counts = rows.every(end.tx, resource_count)
    over = [row for row in counts if UNLIMITED != row["maximum"] < row["used"]]
    return wrong + [f"over its limit: {dict(row)}" for row in over]


def capacity_right(end: End) -> list[str]:
    """(4) What is claimed of hosts and pools equals the sum of what runs and lies there."""
    return left.capacity_amiss(end.tx)


def jobs_ended(end: End) -> list[str]:
    """(5) Every job ended, within its deadline after the last fault."""
    wrong = [] if end.quiet else ["no rest after hours of peace"]
    for row in rows.every(end.tx, job):
        about = f"job {row['id']} {row['workflow']}"
        if row["open"] is not None:
            wrong.append(f"{about} is {row['phase']} at {row['position']}: {row['error_text']}")
            continue
        patience = row["deadline_at"] - row["created_at"] + UNDO_SECONDS * 1000
        late = row["completed_at"] - max(row["created_at"], end.last_fault_at) - patience
        if late > 0:
            wrong.append(f"{about} ended {late / 1000} s late")
    return wrong


def states_stable(end: End) -> list[str]:
    """(6) Every entity is in a state it may stay in."""
    tx = end.tx
    wrong: list[str] = []
    try:
        left.assert_quiet(tx)
    except AssertionError as error:
        wrong += str(error).splitlines()
    for row in rows.every(tx, host, live=1):
        has_agent = row["uuid"] in end.world.hosts.world.hosts or row["id"] in end.world.stores
        # Whose server ended in the call that added it was told of to nobody, and nobody gave it an agent.
        if row["state"] != HostState.UP and (has_agent or row["state"] != HostState.CONNECTING):
            wrong.append(f"host {row['id']} is {row['state']}")
    for row in rows.every(tx, template_copy):
        if row["state"] in (CopyState.DOWNLOADING, CopyState.REMOVING):
            wrong.append(f"copy of template {row['template_id']} is {row['state']}")
    wrong += _not_cleaned_up(tx)
    lives = {row["vm_id"]: row["state"] for row in rows.every(tx, vm_incarnation, current=1)}
    for row in rows.every(tx, vm, live=1):
        if (row["state"] == VmState.RUNNING) is not (row["id"] in lives):
            wrong.append(f"machine {row['id']} is {row['state']}, its life {lives.get(row['id'])}")
    return wrong


def configs_applied(end: End) -> list[str]:
    """(7) The generation applied equals the one desired, and routers run what the database declares."""
    tx = end.tx
    wrong = []
    for row in _CONFIGS.all(tx):
        about = f"network {row['network_id']}"
        if row["applied"] != row["desired"]:
            wrong.append(f"{about}: applied {row['applied']}, desired {row['desired']}, refused {row['refused']}")
            continue
        declared = fingerprint(virtual_router.config(tx, row["network_id"], generation=row["applied"]))
        runs = end.world.hosts.world.config_of(row["instance_name"])
        if runs is None or fingerprint(runs) != declared:
            wrong.append(f"{about}: its router runs another config than declared")
    return wrong


_CONFIGS = Prepared(
    select(network_config, vm.c.instance_name)
    .join(network, network.c.id == network_config.c.network_id)
    .join(vm, vm.c.id == network_config.c.router_id)
    .where(network.c.live == 1, network.c.state == str(NetworkState.IMPLEMENTED))
    .where(vm.c.state == str(VmState.RUNNING))
)


def both_know(end: End) -> list[str]:
    """(8) Nothing is on a host that the database does not know, and the reverse."""
    tx, hosts = end.tx, end.world.hosts
    wrong = [
        *left.guests_amiss(tx, hosts),
        *left.volumes_amiss(tx, hosts),
        *left.templates_amiss(tx, hosts),
        *left.images_amiss(tx, end.world.stores),
    ]
    for check in (hosts.world.assert_sound, hosts.world.assert_bridges_used):
        try:
            check()
        except AssertionError as error:
            wrong.append(str(error))
    return wrong


def events_pair(end: End) -> list[str]:
    """(9) Every job's events have one beginning and one end, and nothing is used twice at the same time."""
    events = rows.every(end.tx, event)
    ends: defaultdict[int, list[str]] = defaultdict(list)
    for row in events:
        if row["start_id"] is not None and row["state"] == "Completed":
            ends[row["start_id"]].append(row["level"])
    wrong = []
    for row in rows.every(end.tx, job):
        if row["start_event_id"] is None or row["open"] is not None:
            continue
        told = ends[row["start_event_id"]]
        wanted = "ERROR" if row["phase"] == Phase.FAILED else "INFO"
        if told != [wanted]:
            wrong.append(f"job {row['id']} {row['workflow']} {row['phase']} ended with events {told}")
    intervals = (
        (vm, "VirtualMachine", types.VM_START, types.VM_STOP),
        (volume, "Volume", types.VOLUME_CREATE, types.VOLUME_DELETE),
        (public_ip, "IpAddress", types.NET_IPASSIGN, types.NET_IPRELEASE),
    )
    done = [row for row in events if row["state"] == "Completed" and row["level"] == "INFO"]
    for table, kind, starts, stops in intervals:
        wrong += _intervals(end, [row for row in done if row["resource_kind"] == kind], table, starts, stops)
    return wrong


def _intervals(end: End, events: list[RowMapping], table: Table, starts: str, stops: str) -> list[str]:
    wrong, running = [], set()
    for row in events:
        about = f"{row['type']} of {table.name} {row['resource_id']} (event {row['id']})"
        if row["type"] == starts:
            if row["resource_id"] in running:
                wrong.append(f"{about}: it had begun already")
            running.add(row["resource_id"])
        elif row["type"] == stops:
            # A stop that was asked for may find that all has stopped already: it is told all the same.
            if row["resource_id"] not in running and row["start_id"] is None:
                wrong.append(f"{about}: it had not begun")
            running.discard(row["resource_id"])
    there = {row["id"] for row in rows.every(end.tx, table, live=1) if _is_used(row, table)}
    if there != running:
        wrong.append(f"{table.name}: in use {sorted(there)}, by its events {sorted(running)}")
    return wrong


def _is_used(row: RowMapping, table: Table) -> bool:
    if table is vm:
        return bool(row["state"] == VmState.RUNNING and row["kind"] == VmKind.USER)
    if table is public_ip:
        return row["account_id"] is not None
    return bool(row["state"] == VolumeState.READY)


def nothing_lost(end: End) -> list[str]:
    """(10) What was acknowledged is there: every job, and every thing that was made."""
    tx = end.tx
    jobs = {row["uuid"]: row for row in rows.every(tx, job)}
    wrong = [f"job {ack.job} of {ack.command} is lost" for ack in end.acks if ack.job and ack.job not in jobs]
    for ack in end.acks:
        made = _made(ack)
        if made is not None and rows.one(tx, made, uuid=ack.entity) is None:
            wrong.append(f"what {ack.command} made is lost: {ack.entity}")
    ended: dict[int, RowMapping] = {}
    for row in sorted(jobs.values(), key=lambda row: (row["completed_at"] or 0, row["id"])):
        if row["workflow"] in _LEAVES:
            ended[row["instance_id"]] = row
    recovered = {ack.parameters["id"] for ack in end.acks if ack.command == "recoverVirtualMachine"}
    for vm_id, row in ended.items():
        if row["phase"] != Phase.SUCCEEDED:
            continue
        machine = rows.one(tx, vm, id=vm_id)
        if machine is None:
            wrong.append(f"machine {vm_id} of job {row['id']} is lost")
        elif machine["uuid"] not in recovered and machine["state"] not in _LEAVES[row["workflow"]]:
            wrong.append(f"{row['workflow']} of machine {vm_id} succeeded last, and it is {machine['state']}")
    return wrong


_MAKES = ("add", "associate", "create", "deploy", "register")


def _made(ack: Ack) -> Table | None:
    """In which table lies what a call has made. Removed rows stay, so it must be there whatever came later."""
    kind = registry[ack.command].returns.kind
    if (
        ack.entity is None
        or kind is None
        or not ack.command.startswith(("add", "associate", "create", "deploy", "reg"))
    ):
        return None
    return KINDS[kind].table


_LEAVES = {
    # A guest may stop by itself, and a host may die: Running is not promised for ever.
    "vm.deploy": (VmState.RUNNING, VmState.STOPPED),
    "vm.create": (VmState.STOPPED,),
    "vm.start": (VmState.RUNNING, VmState.STOPPED),
    "vm.stop": (VmState.STOPPED,),
    "vm.destroy": (VmState.DESTROYED, VmState.EXPUNGING),
    "vm.expunge": (VmState.EXPUNGING,),
    "vm.clear": (VmState.EXPUNGING,),
}


def failures_leave_nothing(end: End) -> list[str]:
    """(11) A failed job left nothing: no life, address, file, fetch or rule that it made."""
    tx = end.tx
    failed = {row["id"]: row for row in rows.every(tx, job, phase=str(Phase.FAILED))}
    if not failed:
        return []
    wrong = []
    for what, statement in _LEFTOVERS:
        for row in statement.all(tx, failed=failed):
            wrong.append(f"{what} of failed job {row['job_id']} {failed[row['job_id']]['workflow']}: {dict(row)}")
    for row in failed.values():
        machine = rows.one(tx, vm, id=row["instance_id"]) if row["workflow"] in ("vm.deploy", "vm.create") else None
        if machine is not None and machine["live"] is not None:
            wrong.append(f"machine {machine['id']} of failed job {row['id']} is {machine['state']}")
    return wrong


def _of_failed(table: Table, *where: ColumnElement[bool]) -> Prepared:
    return Prepared(select(table).where(table.c.job_id.in_(bindparam("failed", expanding=True)), *where))


_LEFTOVERS = (
    ("life", _of_failed(vm_incarnation, vm_incarnation.c.current == 1)),
    ("address", _of_failed(public_ip, public_ip.c.state != str(IpState.FREE))),
    ("volume", _of_failed(volume, volume.c.live == 1, volume.c.state == str(VolumeState.READY))),
    ("fetch", _of_failed(template_on_pool, template_on_pool.c.state == str(CopyState.DOWNLOADING))),
)


INVARIANTS: tuple[Callable[[End], list[str]], ...] = (
    one_life,
    one_owner,
    counts_right,
    capacity_right,
    jobs_ended,
    states_stable,
    configs_applied,
    both_know,
    events_pair,
    nothing_lost,
    failures_leave_nothing,
)


def broken(end: End) -> list[str]:
    """Every invariant that does not hold, with what is wrong."""
    return [f"{check.__name__}: {what}" for check in INVARIANTS for what in check(end)]


def _twice(what: str, things: list[object]) -> list[str]:
    return [f"{what} {thing} is given {n} times" for thing, n in Counter(things).items() if n > 1]
