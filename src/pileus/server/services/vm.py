"""Guests after they were deployed: start, stop, reboot, destroy, recover, change, new passwords. Guide: "VM Lifecycle".

A command that comes while another job holds the guest waits behind it and is judged again when its turn comes.
"""

from typing import Any

from sqlalchemy import RowMapping, select

from pileus.server.auth.visibility import require
from pileus.server.db.queries import count
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.account import domain
from pileus.server.db.tables.host import host
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain import ssh_key
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, PermissionDenied, ResourceInUse
from pileus.server.domain.ids import Host, Id, OsType, ServiceOffering, Vm
from pileus.server.domain.vm import VM, VmState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.events.write import COMPLETED, SCHEDULED
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.reconciler import trigger
from pileus.server.jobs.submit import Owner, submit
from pileus.server.services import instance_group as groups
from pileus.server.services.vm_deploy import checked_user_data, name_key
from pileus.server.services.vm_list import list_page, view
from pileus.server.workflows.vm_destroy import destroy_vm
from pileus.server.workflows.vm_password import reset_password as reset_password_of
from pileus.server.workflows.vm_reboot import reboot_vm
from pileus.server.workflows.vm_record import KIND
from pileus.server.workflows.vm_start import start_vm
from pileus.server.workflows.vm_stop import stop_vm
from pileus.wire.messages import HostKind

__all__ = [
    "change_offering",
    "destroy",
    "list_page",
    "reboot",
    "recover",
    "reset_password",
    "sealed_password",
    "start",
    "stop",
    "update",
    "view",
]


def start(tx: Tx, caller: Caller, vm_id: Id[Vm], *, host_id: Id[Host] | None) -> tuple[str, str]:
    """Start a stopped guest, on its last host if that has room. Returns the UUIDs of the job and of the guest."""
    row = _own(tx, caller, vm_id)
    if host_id is not None:
        _check_host(tx, caller, row, host_id)
    _expect(tx, row, VmState.STOPPED)
    plan = start_vm(vm=vm_id, networks=nics.networks_of(tx, vm_id), host=host_id, any_allocation_state=caller.is_admin)
    return _submit(tx, caller, row, plan, "startVirtualMachine", types.VM_START, "start")


def stop(tx: Tx, caller: Caller, vm_id: Id[Vm], *, forced: bool) -> tuple[str, str]:
    """Stop a running guest: gracefully with the power pulled if that fails, or at once with `forced`."""
    row = _own(tx, caller, vm_id)
    _expect(tx, row, VmState.RUNNING)
    return _submit(tx, caller, row, stop_vm(vm=vm_id, forced=forced), "stopVirtualMachine", types.VM_STOP, "stop")


def reboot(tx: Tx, caller: Caller, vm_id: Id[Vm]) -> tuple[str, str]:
    """Reboot a running guest."""
    row = _own(tx, caller, vm_id)
    _expect(tx, row, VmState.RUNNING)
    return _submit(tx, caller, row, reboot_vm(vm=vm_id), "rebootVirtualMachine", types.VM_REBOOT, "reboot")


def destroy(tx: Tx, caller: Caller, vm_id: Id[Vm], *, expunge: bool) -> tuple[str, str]:
    """Destroy a guest, running or not; with `expunge` (administrators only) its root disk is deleted at once."""
    row = _own(tx, caller, vm_id)
    if expunge and not caller.is_admin:
        raise PermissionDenied("only root administrators may expunge at once")
    _expect(tx, row, VmState.RUNNING, VmState.STOPPED, VmState.ERROR)
    plan = destroy_vm(vm=vm_id, expunge=expunge)
    return _submit(tx, caller, row, plan, "destroyVirtualMachine", types.VM_DESTROY, "destruction")


def reset_password(tx: Tx, caller: Caller, vm_id: Id[Vm]) -> tuple[str, str]:
    """Give a stopped guest a new password; it is told once, in the job's result."""
    row = _own(tx, caller, vm_id)
    if not row["password_enabled"]:
        raise ParameterError(f"the template of virtual machine {row['name']} does not take passwords", parameter="id")
    _expect(tx, row, VmState.STOPPED)
    return _submit(
        tx,
        caller,
        row,
        reset_password_of(vm=vm_id),
        "resetPasswordForVirtualMachine",
        types.VM_RESETPASSWORD,
        "new password",
    )


def sealed_password(tx: Tx, caller: Caller, vm_id: Id[Vm]) -> dict[str, Any]:
    """The guest's password for the holder of its SSH key. 431 without a password, or without an RSA key."""
    row = _own(tx, caller, vm_id)
    data = vms.guest_data_of(tx, vm_id)
    if data is None or not data["password"]:
        raise ParameterError(f"virtual machine {row['name']} has no password", parameter="id")
    if not data["public_key"]:
        raise ParameterError(f"virtual machine {row['name']} was deployed without an SSH key pair", parameter="id")
    sealed = ssh_key.sealed(data["public_key"], data["password"])
    if sealed is None:
        raise ParameterError(f"the SSH key of virtual machine {row['name']} is not RSA", parameter="id")
    return {"encrypted_password": sealed}


def recover(tx: Tx, caller: Caller, vm_id: Id[Vm]) -> dict[str, Any]:
    """Bring back a destroyed guest, stopped, with new addresses on its old networks, while its disk is still there.

    Errors: 431 when it is not destroyed or its name is taken meanwhile, 535 beyond a limit, 536 while it is expunged.
    """
    row = _own(tx, caller, vm_id)
    if vms.has_open_job(tx, vm_id):
        raise ResourceInUse(f"virtual machine {row['name']} is being expunged")
    if not transition(tx, vm_table, vm_id, VM, VmState.STOPPED, frm=VmState.DESTROYED, destroyed_at=None):
        raise ParameterError(f"virtual machine {row['name']} is {row['state']}, not Destroyed", parameter="id")
    count.claim(tx, row["account_id"], Resource.INSTANCE)
    networks = vms.last_networks_of(tx, vm_id)
    for device_id, (network_id, is_default) in enumerate(networks):
        nics.allocate(tx, network_id=network_id, vm_id=vm_id, device_id=device_id, is_default=is_default)
        if is_default and not vms.take_name(tx, vm_id, name_key(tx, network_id, row["name"])):
            raise ParameterError(
                f"a virtual machine named {row['name']} exists in the network domain already", parameter="id"
            )
    trigger(tx, virtual_router.RECONCILER)
    _record(tx, caller, row, types.VM_CREATE, f"Virtual machine {row['name']} was recovered")
    return view(tx, caller, vm_id)


def update(
    tx: Tx,
    caller: Caller,
    vm_id: Id[Vm],
    *,
    display_name: str | None,
    group: str | None,
    ha_enable: bool | None,
    os_type_id: Id[OsType] | None,
    user_data: str | None,
) -> dict[str, Any]:
    """Change what users may change of a guest. New user data reaches a running guest's router at once."""
    row = _own(tx, caller, vm_id)
    changes: dict[str, Any] = {}
    if display_name is not None:
        changes["display_name"] = display_name
    if group is not None:
        whose = Owner(row["account_id"], row["domain_id"], caller.user_id)
        changes["group_id"] = groups.named_or_new(tx, whose, group) if group else None
    if ha_enable is not None:
        changes["ha"] = int(ha_enable)
    if os_type_id is not None:
        changes["os_type_id"] = os_type_id
    if changes:
        vms.change(tx, vm_id, **changes)
    if user_data is not None:
        vms.set_guest_data(tx, vm_id, user_data=checked_user_data(user_data))
        virtual_router.vm_changed(tx, vm_id)
    _record(tx, caller, row, types.VM_UPDATE, f"Virtual machine {row['name']} was changed")
    return view(tx, caller, vm_id)


def change_offering(tx: Tx, caller: Caller, vm_id: Id[Vm], service_offering_id: Id[ServiceOffering]) -> dict[str, Any]:
    """Give a stopped guest another service offering, from its next start on."""
    row = _own(tx, caller, vm_id)
    if row["state"] != VmState.STOPPED or vms.has_open_job(tx, vm_id):
        raise ParameterError(f"virtual machine {row['name']} must be stopped", parameter="id")
    offering = tx.one(select(service_offering).where(service_offering.c.id == service_offering_id))
    if offering is None or offering["is_system"]:
        raise ParameterError("the service offering is not one for guests", parameter="serviceofferingid")
    if offering["domain_id"] is not None and not _below(tx, row["domain_id"], offering["domain_id"]):
        raise PermissionDenied(f"service offering {offering['name']} is not offered to this account")
    vms.change(tx, vm_id, service_offering_id=service_offering_id, ha=int(offering["offer_ha"]))
    # The guest reads its offering's name from its router.
    virtual_router.vm_changed(tx, vm_id)
    text = f"Virtual machine {row['name']} has service offering {offering['name']} now"
    _record(tx, caller, vms.by_id(tx, vm_id), types.VM_UPGRADE, text)
    return view(tx, caller, vm_id)


def _own(tx: Tx, caller: Caller, vm_id: int) -> RowMapping:
    row = vms.by_id(tx, vm_id)
    require(tx, caller, row["account_id"], row["domain_id"], f"virtual machine {row['name']}")
    return row


def _expect(tx: Tx, row: RowMapping, *states: VmState) -> None:
    """Refuse at once what cannot be; behind an open job only that job's end will tell."""
    if row["state"] not in states and not vms.has_open_job(tx, row["id"]):
        raise ParameterError(
            f"virtual machine {row['name']} is {row['state']}, not {' or '.join(states)}", parameter="id"
        )


def _check_host(tx: Tx, caller: Caller, row: RowMapping, host_id: int) -> None:
    if not caller.is_admin:
        raise PermissionDenied("only root administrators may choose a host")
    found = tx.one(select(host).where(host.c.id == host_id))
    if found is None or found["kind"] != str(HostKind.ROUTING) or found["zone_id"] != row["zone_id"]:
        raise ParameterError("the host takes no guests of this zone", parameter="hostid")


def _below(tx: Tx, domain_id: int, above_id: int) -> bool:
    paths = {row["id"]: row["path"] for row in tx.all(select(domain).where(domain.c.id.in_((domain_id, above_id))))}
    return str(paths[domain_id]).startswith(str(paths[above_id]))


def _submit(tx: Tx, caller: Caller, row: RowMapping, plan: Plan, command: str, type: str, what: str) -> tuple[str, str]:
    scheduled = _record(
        tx, caller, row, type, f"Scheduled the {what} of virtual machine {row['name']}", state=SCHEDULED
    )
    job = submit(
        tx,
        plan,
        Owner(row["account_id"], row["domain_id"], caller.user_id),
        command=command,
        instance_kind=KIND,
        instance_id=row["id"],
        resource_key=f"vm:{row['id']}",
        start_event_id=scheduled,
    )
    return job.uuid, row["uuid"]


def _record(tx: Tx, caller: Caller, row: RowMapping, type: str, text: str, *, state: str = COMPLETED) -> int:
    return record(
        tx,
        type=type,
        description=text,
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=caller.user_id,
        state=state,
        resource_kind=KIND,
        resource_id=row["id"],
        zone_id=row["zone_id"],
    )
