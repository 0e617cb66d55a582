"""deployVirtualMachine: one transaction that checks, claims limits, writes every row and submits the job.

Whatever is refused here leaves nothing; what fails later is undone by the job's first step.
"""

import re
import secrets
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import RowMapping, Table, select

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.auth.visibility import resolve
from pileus.server.config import keys, value
from pileus.server.db import rows
from pileus.server.db.queries import count
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.account import domain
from pileus.server.db.tables.column import new_uuid
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import network
from pileus.server.db.tables.offering import disk_offering, service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import template, template_copy
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError, PermissionDenied
from pileus.server.domain.host import AllocationState
from pileus.server.domain.ids import DiskOffering as DiskOfferingKind
from pileus.server.domain.ids import Host, Id, Network, ServiceOffering, Template, Zone
from pileus.server.domain.storage import SYSTEM_TEMPLATE, CopyState, VolumeKind
from pileus.server.domain.vm import VmKind, VmState, guest_name
from pileus.server.events import record, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.submit import submit
from pileus.server.placement.demand import Demand, DiskDemand, tags_of
from pileus.server.services import instance_group as groups
from pileus.server.services import network as network_service
from pileus.server.services import ssh_key as ssh_keys
from pileus.server.workflows.vm_deploy import create_vm, deploy_vm
from pileus.server.workflows.vm_password import new_password
from pileus.server.workflows.vm_record import KIND
from pileus.wire.messages import HostKind

MOST_USER_DATA_BYTES = 32 * 1024
_GIB = 1 << 30
_HOST_NAME = re.compile(r"(?=.*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)


@dataclass(frozen=True)
class Order:
    """What the caller of deployVirtualMachine wants. `size_gib` is for disk offerings of a size to be chosen;
    `addresses` are the entries of iptonetworklist."""

    zone_id: Id[Zone]
    service_offering_id: Id[ServiceOffering]
    template_id: Id[Template]
    name: str | None = None
    display_name: str | None = None
    account: str | None = None
    domain_id: int | None = None
    network_ids: tuple[int, ...] | None = None
    addresses: tuple[Mapping[str, str], ...] = ()
    ip_address: str | None = None
    disk_offering_id: Id[DiskOfferingKind] | None = None
    size_gib: int | None = None
    group: str | None = None
    key_pair: str | None = None
    hypervisor: str | None = None
    user_data: str | None = None
    host_id: Id[Host] | None = None
    start: bool = True


@dataclass(frozen=True)
class _Card:
    network_id: int
    ip: str | None


def deploy(tx: Tx, caller: Caller, order: Order) -> tuple[str, str]:
    """Create a guest and start it. Returns the UUIDs of the job and of the guest.

    Errors: 431 for what does not fit together, a used name or address and bad user data; 531 for what is not the
    caller's to use; 535 beyond a limit. Lack of capacity fails the job with 533.
    """
    owner = owner_of(tx, caller, order.account, order.domain_id)
    place = _zone(tx, caller, owner, order)
    offering = _offering(tx, owner, order)
    image, copy = _template(tx, order)
    disk = _disk(tx, owner, order)
    user_data = checked_user_data(order.user_data)
    public_key = ssh_keys.public_key(tx, owner, order.key_pair) if order.key_pair else None
    if order.name is not None:
        _check_name(order.name)
    _check_host(tx, caller, order)
    cards = _cards_wanted(tx, caller, owner, order)
    count.claim(tx, owner.account_id, Resource.INSTANCE)
    count.claim(tx, owner.account_id, Resource.VOLUME, 1 if disk is None else 2)
    vm_id, uuid = _add_vm(tx, owner, order, offering, image)
    name = _name(tx, vm_id, owner, order, cards[0].network_id)
    for device_id, card in enumerate(cards):
        nics.allocate(
            tx, network_id=card.network_id, vm_id=vm_id, device_id=device_id, is_default=device_id == 0, ip=card.ip
        )
    _add_volumes(tx, vm_id, owner, order, copy, disk)
    password = new_password() if image["password_enabled"] else None
    if user_data or password or public_key:
        told = {"password": password, "password_id": new_uuid() if password else None}
        vms.set_guest_data(tx, vm_id, user_data=user_data, public_key=public_key, **told)
    scheduled = record(
        tx,
        type=types.VM_CREATE,
        description=f"Scheduled the creation of virtual machine {name}",
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=caller.user_id,
        state=SCHEDULED,
        resource_kind=KIND,
        resource_id=vm_id,
        zone_id=place["id"],
    )
    plan = create_vm(vm=vm_id)
    if order.start:
        plan = deploy_vm(
            vm=vm_id,
            networks=[card.network_id for card in cards],
            host=order.host_id,
            any_allocation_state=caller.is_admin,
        )
    job = submit(
        tx,
        plan,
        owner,
        command="deployVirtualMachine",
        instance_kind=KIND,
        instance_id=vm_id,
        resource_key=f"vm:{vm_id}",
        start_event_id=scheduled,
    )
    return job.uuid, uuid


def demand_of(tx: Tx, caller: Caller, order: Order) -> Demand:
    """What the guest of an order would need of a place. Errors as for `deploy`, as far as they bear on the place.

    Nothing is written, and of networks only those that are named are looked at.
    """
    owner = owner_of(tx, caller, order.account, order.domain_id)
    here = _zone(tx, caller, owner, order)
    offering = _offering(tx, owner, order)
    image, copy = _template(tx, order)
    disk = _disk(tx, owner, order)
    _check_host(tx, caller, order)
    if order.network_ids:
        network_service.for_deploy(tx, caller, owner, order.zone_id, list(order.network_ids))
    disks = [DiskDemand(0, copy["virtual_bytes"], tags_of(offering["tags"]))]
    if disk is not None:
        disks.append(DiskDemand(1, disk[1], tags_of(disk[0]["tags"])))
    return Demand(
        name="the virtual machine",
        zone_id=here["id"],
        cpus=offering["cpus"],
        cpu_mhz=offering["cpu_mhz"],
        ram_mib=offering["ram_mib"],
        hypervisor=image["hypervisor"],
        host_tag=offering["host_tag"] or None,
        host_id=order.host_id,
        disks=tuple(disks),
        any_allocation_state=caller.is_admin,
        os_type_id=image["os_type_id"],
        account_id=owner.account_id,
    )


def checked_user_data(text: str | None) -> str | None:
    """User data as the API takes it: base64 of at most 32 KiB; None when there is none. 431 otherwise."""
    if not text:
        return None
    try:
        data = b64decode(text, validate=True)
    except ValueError as error:
        raise ParameterError("userdata is not base64", parameter="userdata") from error
    if len(data) > MOST_USER_DATA_BYTES:
        raise ParameterError(
            f"userdata holds {len(data)} bytes, at most {MOST_USER_DATA_BYTES} are allowed", parameter="userdata"
        )
    return text


def name_key(tx: Tx, network_id: int, name: str) -> str:
    """What is unique while a host name is taken: the name in its network domain, among its account's own networks."""
    row = rows.kept(tx, network, network_id)
    if row is None:
        raise LookupError(f"no network {network_id}")
    suffix = row["network_domain"] or value(tx, keys.guest_domain_suffix)
    whose = "shared" if row["is_shared"] else row["account_id"]
    return f"{suffix}/{whose}/{name}".lower()


def _row(tx: Tx, table: Table, row_id: int) -> RowMapping:
    row = rows.kept(tx, table, row_id)
    if row is None:
        raise LookupError(f"no {table.name} {row_id}")
    return row


def _zone(tx: Tx, caller: Caller, owner: Owner, order: Order) -> RowMapping:
    row = _row(tx, zone, order.zone_id)
    if row["allocation_state"] != AllocationState.ENABLED and not caller.is_admin:
        raise PermissionDenied(f"zone {row['name']} is disabled for new guests")
    _check_given(tx, owner, row["domain_id"], f"zone {row['name']}")
    return row


def _offering(tx: Tx, owner: Owner, order: Order) -> RowMapping:
    row = _row(tx, service_offering, order.service_offering_id)
    if row["is_system"]:
        raise ParameterError(f"service offering {row['name']} is for system VMs", parameter="serviceofferingid")
    _check_given(tx, owner, row["domain_id"], f"service offering {row['name']}")
    return row


def _template(tx: Tx, order: Order) -> tuple[RowMapping, RowMapping]:
    row = _row(tx, template, order.template_id)
    if order.hypervisor is not None and order.hypervisor.lower() != row["hypervisor"].lower():
        raise ParameterError(
            f"template {row['name']} is for {row['hypervisor']}, not for {order.hypervisor}", parameter="hypervisor"
        )
    if row["type"] == SYSTEM_TEMPLATE:
        raise ParameterError(f"template {row['name']} is for system VMs", parameter="templateid")
    if not row["is_bootable"]:
        raise ParameterError(f"template {row['name']} cannot be booted", parameter="templateid")
    copy = rows.one(tx, template_copy, template_id=order.template_id, zone_id=order.zone_id)
    if copy is None or copy["state"] != CopyState.READY:
        raise ParameterError(f"template {row['name']} is not ready in this zone", parameter="templateid")
    return row, copy


def _disk(tx: Tx, owner: Owner, order: Order) -> tuple[RowMapping, int] | None:
    """The disk offering of a data disk and its size in bytes."""
    if order.disk_offering_id is None:
        return None
    row = _row(tx, disk_offering, order.disk_offering_id)
    _check_given(tx, owner, row["domain_id"], f"disk offering {row['name']}")
    if not row["customized"]:
        return row, int(row["size_bytes"])
    largest = value(tx, keys.max_volume_size_gb)
    if order.size_gib is None:
        raise ParameterError(f"disk offering {row['name']} needs a size, in GB", parameter="size")
    if not 1 <= order.size_gib <= largest:
        raise ParameterError(f"size must be from 1 to {largest} GB", parameter="size")
    return row, order.size_gib * _GIB


def _check_given(tx: Tx, owner: Owner, domain_id: int | None, what: str) -> None:
    """What was given to one domain may be used by accounts of it and of those below it."""
    if domain_id is None:
        return
    path = str(tx.scalar(select(domain.c.path).where(domain.c.id == domain_id)))
    of_owner = str(tx.scalar(select(domain.c.path).where(domain.c.id == owner.domain_id)))
    if not of_owner.startswith(path):
        raise PermissionDenied(f"{what} is not offered to this account")


def _check_name(name: str) -> None:
    if not _HOST_NAME.fullmatch(name):
        raise ParameterError(
            "name must be a host name of RFC 1123: letters, digits and hyphens, no hyphen at either end, "
            f"at least one letter, at most 63 characters; got {name!r}",
            parameter="name",
        )


def _check_host(tx: Tx, caller: Caller, order: Order) -> None:
    if order.host_id is None:
        return
    if not caller.is_admin:
        raise PermissionDenied("only root administrators may choose a host")
    row = _row(tx, host, order.host_id)
    if row["kind"] != str(HostKind.ROUTING) or row["zone_id"] != order.zone_id:
        raise ParameterError(f"host {row['name']} takes no guests of this zone", parameter="hostid")


def _cards_wanted(tx: Tx, caller: Caller, owner: Owner, order: Order) -> list[_Card]:
    """The networks of the guest with the addresses asked for, the default first."""
    if order.addresses:
        if order.network_ids or order.ip_address:
            raise ParameterError(
                "iptonetworklist cannot be given with networkids or ipaddress", parameter="iptonetworklist"
            )
        asked = [_asked(tx, caller, entry) for entry in order.addresses]
        chosen = network_service.for_deploy(tx, caller, owner, order.zone_id, [card.network_id for card in asked])
        addresses = {card.network_id: card.ip for card in asked}
        return [_Card(network_id, addresses.get(network_id)) for network_id in chosen]
    wanted = list(order.network_ids) if order.network_ids else None
    chosen = network_service.for_deploy(tx, caller, owner, order.zone_id, wanted)
    return [_Card(network_id, order.ip_address if first else None) for first, network_id in _first(chosen)]


def _asked(tx: Tx, caller: Caller, entry: Mapping[str, str]) -> _Card:
    told = {key.lower(): text for key, text in entry.items()}
    if not told.get("networkid"):
        raise ParameterError("each entry of iptonetworklist needs networkid", parameter="iptonetworklist")
    network_id = resolve(tx, caller, Network, told["networkid"], "iptonetworklist")
    return _Card(network_id, told.get("ip") or None)


def _first(networks: list[int]) -> list[tuple[bool, int]]:
    return [(index == 0, network_id) for index, network_id in enumerate(networks)]


def _add_vm(tx: Tx, owner: Owner, order: Order, offering: RowMapping, image: RowMapping) -> tuple[int, str]:
    uuid = new_uuid()
    vm_id = vms.add(
        tx,
        uuid=uuid,
        kind=str(VmKind.USER),
        name=order.name or "",
        display_name=order.display_name,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        zone_id=order.zone_id,
        state=str(VmState.STARTING if order.start else VmState.STOPPED),
        service_offering_id=offering["id"],
        template_id=image["id"],
        os_type_id=image["os_type_id"],
        hypervisor=image["hypervisor"],
        group_id=groups.named_or_new(tx, owner, order.group) if order.group else None,
        key_pair=order.key_pair,
        vnc_password=secrets.token_urlsafe(6),
        ha=int(offering["offer_ha"]),
        password_enabled=image["password_enabled"],
    )
    return vm_id, uuid


def _name(tx: Tx, vm_id: int, owner: Owner, order: Order, network_id: int) -> str:
    """The guide's three names; the two that a user may leave out default to the instance name."""
    instance_name = guest_name(owner.account_id, vm_id)
    name = order.name or instance_name
    names = {"instance_name": instance_name, "name": name, "display_name": order.display_name or name}
    if not vms.take_name(tx, vm_id, name_key(tx, network_id, name), **names):
        raise ParameterError(f"a virtual machine named {name} exists in the network domain already", parameter="name")
    return name


def _add_volumes(
    tx: Tx, vm_id: int, owner: Owner, order: Order, copy: RowMapping, disk: tuple[RowMapping, int] | None
) -> None:
    whose = {
        "account_id": owner.account_id,
        "domain_id": owner.domain_id,
        "zone_id": order.zone_id,
        "vm_id": vm_id,
        "attached_at": tx.now,
    }
    vms.add_volume(
        tx,
        **whose,
        name=f"ROOT-{vm_id}",
        kind=str(VolumeKind.ROOT),
        device_id=0,
        size_bytes=copy["virtual_bytes"],
        template_id=order.template_id,
        service_offering_id=order.service_offering_id,
    )
    if disk is not None:
        vms.add_volume(
            tx,
            **whose,
            name=f"DATA-{vm_id}",
            kind=str(VolumeKind.DATADISK),
            device_id=1,
            size_bytes=disk[1],
            disk_offering_id=disk[0]["id"],
        )
