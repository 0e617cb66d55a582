"""Guests as workflows and services see them, and the rows of a list page."""

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Integer, RowMapping, and_, bindparam, delete, func, or_, select

from pileus.server.db import rows
from pileus.server.db.prepared import Prepared
from pileus.server.db.queries import roll
from pileus.server.db.queries.page import Lookup, like, page_of_keys
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.host import host
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import guest_data, network, nic
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.vm import instance_group, vm, vm_stats
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.network import GuestIpType
from pileus.server.domain.storage import VolumeState
from pileus.server.domain.vm import OUT_OF_SIGHT, VmKind, VmState

_SHOWN = (
    *(vm.c.uuid.label("id"), vm.c.name, vm.c.display_name, vm.c.instance_name, vm.c.state, vm.c.hypervisor),
    *(vm.c.key_pair, vm.c.created_at.label("created"), vm.c.ha, vm.c.password_enabled),
    *(vm.c.zone_id, vm.c.service_offering_id, vm.c.template_id, vm.c.os_type_id, vm.c.group_id),
    *(account.c.name.label("account"), domain.c.uuid.label("domain_id"), domain.c.name.label("domain")),
    *(host.c.uuid.label("host_id"), host.c.name.label("host_name")),
    *(vm_stats.c.cpu_used, vm_stats.c.received_bytes, vm_stats.c.sent_bytes, vm.c.live),
)
# Outer joins, so that every database begins with the guests; only running ones have a load.
_WITH_OWNER_AND_HOST = (
    vm.outerjoin(account, account.c.id == vm.c.account_id)
    .outerjoin(domain, domain.c.id == vm.c.domain_id)
    .outerjoin(host, host.c.id == vm.c.host_id)
    .outerjoin(vm_stats, and_(vm_stats.c.vm_id == vm.c.id, vm.c.state == str(VmState.RUNNING)))
)
SHOWN = Lookup(vm.c.id, *_SHOWN, source=_WITH_OWNER_AND_HOST, in_order=True)
"""What is shown of guests themselves, removed or not, in order of their keys. Columns that end in `_id` are keys, but
for `domain_id` and `host_id`."""

CARDS = Lookup(
    nic.c.vm_id,
    *(nic.c.device_id, nic.c.uuid.label("id"), nic.c.netmask, nic.c.gateway, nic.c.ip.label("ip_address")),
    *(nic.c.mac.label("mac_address"), nic.c.is_default, nic.c.traffic_type),
    *(network.c.uuid.label("network_id"), network.c.name.label("network_name")),
    *(network.c.guest_ip_type.label("type"), network.c.vnet, network.c.isolation),
    source=nic.outerjoin(network, network.c.id == nic.c.network_id),
    where=[nic.c.live == 1],
)
"""Cards of guests and the networks they are on, by the guests' keys."""


def by_id(tx: Tx, vm_id: int) -> RowMapping:
    """The VM, removed or not."""
    row = rows.one(tx, vm, id=vm_id)
    if row is None:
        raise LookupError(f"no virtual machine {vm_id}")
    return row


def listed(tx: Tx, keys: Iterable[int], *, see_destroyed: bool) -> list[tuple[Any, ...]]:
    """`SHOWN` of the guests of a page. Where reads are no snapshot, a guest may be gone since its key was found."""
    # Asked in SQL, this would be answered by an index of what is live before one of the keys.
    state, live = SHOWN.place["state"], SHOWN.place["live"]
    rows = SHOWN.rows(tx, keys)
    return [row for row in rows if row[live] == 1 and (see_destroyed or row[state] not in OUT_OF_SIGHT)]


def offering_of(tx: Tx, row: Mapping[Any, Any]) -> RowMapping:
    """The service offering of a VM, removed or not."""
    found = rows.kept(tx, service_offering, row["service_offering_id"])
    if found is None:
        raise LookupError(f"no service offering {row['service_offering_id']}")
    return found


def add(tx: Tx, **values: Any) -> int:
    """Insert a VM."""
    vm_id = rows.add(tx, vm, created_at=tx.now, **values)
    roll.changed(tx, vm, vm_id)
    return vm_id


def change(tx: Tx, vm_id: int, **values: Any) -> None:
    """Set columns of a VM; its state changes by `transition` only."""
    rows.change(tx, vm, {"id": vm_id}, **values)


def take_name(tx: Tx, vm_id: int, name_key: str, **values: Any) -> bool:
    """Claim a host name in its network domain, and set columns with it; False when another VM has it.

    Who takes the name at the same moment loses by the unique key, and its unit of work is called again.
    """
    if rows.one(tx, vm, name_key=name_key) is not None:
        return False
    rows.change(tx, vm, {"id": vm_id}, name_key=name_key, **values)
    return True


def set_guest_data(tx: Tx, vm_id: int, **values: Any) -> None:
    """Set what the router serves to the guest (`user_data`, `password`, `password_id`)."""
    if rows.change(tx, guest_data, {"vm_id": vm_id}, **values) == 0:
        rows.put(tx, guest_data, vm_id=vm_id, **values)


def guest_data_of(tx: Tx, vm_id: int) -> RowMapping | None:
    """What the router serves to the guest."""
    return rows.one(tx, guest_data, vm_id=vm_id)


def last_networks_of(tx: Tx, vm_id: int) -> list[tuple[int, bool]]:
    """The networks, with whether they were the default, of a VM whose NICs are released: one per device, the newest."""
    released = tx.all(select(nic).where(nic.c.vm_id == vm_id, nic.c.live.is_(None)).order_by(nic.c.id))
    by_device = {row["device_id"]: (int(row["network_id"]), bool(row["is_default"])) for row in released}
    return [by_device[device] for device in sorted(by_device)]


def add_volume(tx: Tx, **values: Any) -> int:
    """Insert a volume that has no file yet."""
    return rows.add(tx, volume, created_at=tx.now, state=str(VolumeState.ALLOCATED), **values)


def remove(tx: Tx, vm_id: int) -> None:
    """Take a VM out of use, with everything that only it has: its name, what the router told it, its statistics."""
    change(tx, vm_id, live=None, removed_at=tx.now, name_key=None)
    roll.changed(tx, vm, vm_id)
    tx.execute(delete(guest_data).where(guest_data.c.vm_id == vm_id))
    tx.execute(delete(vm_stats).where(vm_stats.c.vm_id == vm_id))


def has_open_job(tx: Tx, vm_id: int) -> bool:
    """Whether a job holds the VM or waits for it."""
    return has_open_job_on(tx, f"vm:{vm_id}")


def open_jobs_on(tx: Tx, vm_id: int) -> list[int]:
    """Keys of the jobs that hold the VM or wait for it."""
    return list(_OPEN_ON.scalars(tx, the_key=f"vm:{vm_id}"))


def has_open_job_on(tx: Tx, resource_key: str) -> bool:
    """Whether a job holds the resource or waits for it."""
    return _OPEN_ON.scalar(tx, the_key=resource_key) is not None


_OPEN_ON = Prepared(select(job.c.id).where(job.c.open == 1, job.c.resource_key == bindparam("the_key")))


def open_jobs(tx: Tx, workflow: str) -> int:
    """How many jobs of a workflow have not ended."""
    return int(_OPEN_OF.scalar(tx, the_workflow=workflow))


_OPEN_OF = Prepared(
    select(func.count()).select_from(job).where(job.c.open == 1, job.c.workflow == bindparam("the_workflow"))
)


def to_expunge(tx: Tx, *, destroyed_before: int, limit: int) -> list[RowMapping]:
    """Destroyed guests whose delay is over, and those whose expunging was interrupted; without an open job."""
    return _TO_EXPUNGE.all(tx, destroyed_before=destroyed_before, most=limit)


_open_job = select(job.c.id).where(
    job.c.open == 1, job.c.instance_kind == "VirtualMachine", job.c.instance_id == vm.c.id
)

_late = (vm.c.state == str(VmState.DESTROYED)) & (vm.c.destroyed_at <= bindparam("destroyed_before"))

_TO_EXPUNGE = Prepared(
    select(vm)
    .where(
        vm.c.live == 1,
        vm.c.kind == str(VmKind.USER),
        vm.c.state.in_([str(state) for state in OUT_OF_SIGHT]),
        or_(_late, vm.c.state == str(VmState.EXPUNGING)),
        ~_open_job.exists(),
    )
    .order_by(vm.c.destroyed_at)
    .limit(bindparam("most", type_=Integer))
)


def list_page(
    tx: Tx,
    where: Collection[ColumnElement[bool]],
    *,
    whose: Hashable,
    see_destroyed: bool,
    vm_ids: Collection[int] | None,
    name: str | None,
    state: str | None,
    keyword: str | None,
    zone_id: int | None,
    pod_id: int | None,
    host_id: int | None,
    network_id: int | None,
    storage_id: int | None,
    template_id: int | None,
    service_offering_id: int | None,
    hypervisor: str | None,
    group: str | None,
    group_id: int | None,
    key_pair: str | None,
    for_virtual_network: bool | None,
    offset: int,
    limit: int,
) -> tuple[Sequence[int], int]:
    """Keys of one page of guests, and the number of all; `state` "present" means all that are not destroyed.

    `where` says whose, and so does `whose`, as a name: None if the guests of the same name may be others later.
    """
    conditions: list[ColumnElement[bool]] = [vm.c.live == 1, vm.c.kind == str(VmKind.USER), *where]
    if vm_ids is not None:
        conditions.append(vm.c.id.in_(sorted(vm_ids)))
    for column, wanted in (
        (vm.c.zone_id, zone_id),
        (vm.c.pod_id, pod_id),
        (vm.c.host_id, host_id),
        (vm.c.template_id, template_id),
        (vm.c.service_offering_id, service_offering_id),
        (vm.c.hypervisor, hypervisor),
        (vm.c.group_id, group_id),
        (vm.c.key_pair, key_pair),
    ):
        if wanted is not None:
            conditions.append(column == wanted)
    if name:
        conditions.append(like(vm.c.name, name))
    if group is not None:
        named = select(instance_group.c.id).where(instance_group.c.live == 1, instance_group.c.name == group)
        conditions.append(vm.c.group_id.in_(named))
    if keyword:
        columns = (vm.c.name, vm.c.display_name, vm.c.instance_name, vm.c.state)
        conditions.append(or_(*(like(column, keyword) for column in columns)))
    if not see_destroyed or state == "present":
        conditions.append(vm.c.state.not_in([str(s) for s in OUT_OF_SIGHT]))
    if state is not None and state != "present":
        conditions.append(vm.c.state == state)
    if network_id is not None:
        conditions.append(_has_nic(nic.c.network_id == network_id))
    if for_virtual_network is not None:
        virtual = select(network.c.id).where(
            network.c.id == nic.c.network_id, network.c.guest_ip_type == str(GuestIpType.VIRTUAL)
        )
        default_is_virtual = _has_nic(nic.c.is_default == 1, virtual.exists())
        conditions.append(default_is_virtual if for_virtual_network else ~default_is_virtual)
    if storage_id is not None:
        on_pool = select(volume.c.id).where(
            volume.c.live == 1, volume.c.vm_id == vm.c.id, volume.c.pool_id == storage_id
        )
        conditions.append(on_pool.exists())
    # What these ask for never changes, or is marked when it does; about all other columns a roll would not be told.
    others = (
        *(vm_ids, name, keyword, pod_id, host_id, network_id, storage_id, template_id, service_offering_id),
        *(hypervisor, group, group_id, key_pair, for_virtual_network),
    )
    unmarked = any(each is not None for each in others) or state not in (None, "present")
    known_as = None if whose is None or unmarked else (whose, zone_id, see_destroyed and state is None)
    return page_of_keys(tx, vm, conditions, offset=offset, limit=limit, known_as=known_as)


def _has_nic(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    return select(nic.c.id).where(nic.c.live == 1, nic.c.vm_id == vm.c.id, *conditions).exists()
