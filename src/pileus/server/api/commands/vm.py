"""Commands on virtual machines. Guide: "Guest VM Management", "VM Lifecycle"."""

from pileus.server.api.command import (
    DOMAIN_ADMINS,
    EVERYONE,
    Call,
    ListParams,
    MapParameter,
    Page,
    Params,
    Response,
    Started,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import (
    DiskOffering,
    Domain,
    Host,
    Id,
    InstanceGroup,
    Network,
    OsType,
    Pod,
    ServiceOffering,
    StoragePool,
    Template,
    Vm,
    Zone,
)
from pileus.server.events import types
from pileus.server.services import vm
from pileus.server.services.vm_deploy import Order, deploy

USER_DATA_LENGTH = 64 * 1024


class NicResponse(Response, name="nic"):
    """A network card of a virtual machine."""

    id = out("the ID of the nic")
    network_id = out("the ID of the network of the nic")
    network_name = out("the name of the network of the nic")
    netmask = out("the netmask of the nic")
    gateway = out("the gateway of the nic")
    ip_address = out("the IP address of the nic")
    mac_address = out("the MAC address of the nic")
    isolation_uri = out("how the network of the nic is kept apart; for administrators")
    broadcast_uri = out("the broadcast domain of the nic; for administrators")
    traffic_type = out("the traffic type of the nic")
    type = out("the type of the network of the nic: Virtual or Direct")
    is_default = out("true if the nic is the default one", "boolean")
    device_id = out("the position of the nic in the virtual machine")


class SecurityGroupResponse(Response, name="securitygroup"):
    """A security group of a virtual machine."""

    id = out("the ID of the security group")
    name = out("the name of the security group")


class TagResponse(Response, name="tags"):
    """A tag of a virtual machine."""

    key = out("the key of the tag")
    value = out("the value of the tag")


class AffinityGroupResponse(Response, name="affinitygroup"):
    """An affinity group of a virtual machine."""

    id = out("the ID of the affinity group")
    name = out("the name of the affinity group")


class VmResponse(Response, name="virtualmachine", kind=Vm, load=vm.view):
    """A virtual machine; where it runs is shown to administrators only."""

    id = out("the ID of the virtual machine")
    name = out("the host name of the virtual machine")
    display_name = out("the name shown for the virtual machine")
    instance_name = out("the immutable name of the virtual machine on its host; for administrators")
    ip_address = out("the IP address of the default nic")
    account = out("the account of the virtual machine")
    domain_id = out("the ID of the domain of the virtual machine")
    domain = out("the name of the domain of the virtual machine")
    created = out("when the virtual machine was created", "date")
    state = out("the state of the virtual machine")
    ha_enable = out("true if high availability is enabled", "boolean")
    group = out("the name of the group of the virtual machine")
    group_id = out("the ID of the group of the virtual machine")
    key_pair = out("the SSH key pair it was deployed with")
    zone_id = out("the ID of the zone of the virtual machine")
    zone_name = out("the name of the zone of the virtual machine")
    host_id = out("the ID of the host of the virtual machine; for administrators")
    host_name = out("the name of the host of the virtual machine; for administrators")
    template_id = out("the ID of the template of the virtual machine")
    template_name = out("the name of the template of the virtual machine")
    template_display_text = out("the display text of the template of the virtual machine")
    password_enabled = out("true if the password can be reset", "boolean")
    service_offering_id = out("the ID of the service offering of the virtual machine")
    service_offering_name = out("the name of the service offering of the virtual machine")
    for_virtual_network = out("true if the default network is a virtual one", "boolean")
    cpu_number = out("the number of CPUs of the virtual machine", "integer")
    cpu_speed = out("the speed of each CPU in MHz", "integer")
    memory = out("the memory of the virtual machine in MB", "integer")
    cpu_used = out("the share of CPU in use")
    network_kbs_read = out("incoming traffic in KiB", "long")
    network_kbs_write = out("outgoing traffic in KiB", "long")
    guest_os_id = out("the ID of the operating system of the virtual machine")
    os_display_name = out("the name of the operating system of the virtual machine")
    root_device_id = out("the device number of the root disk", "long")
    root_device_type = out("the type of the root disk")
    security_group = out("the security groups of the virtual machine", "list", nested=SecurityGroupResponse)
    password = out("the password of the virtual machine, told once in the result of the job that set it")
    nic = out("the nics of the virtual machine", "list", nested=NicResponse)
    hypervisor = out("the hypervisor of the virtual machine")
    tags = out("the tags of the virtual machine", "list", nested=TagResponse)
    affinity_group = out("the affinity groups of the virtual machine", "list", nested=AffinityGroupResponse)


@command("deployVirtualMachine", roles=EVERYONE, job=True, emits=types.VM_CREATE, returns=VmResponse)
class DeployVirtualMachine(Params):
    """Creates and starts a virtual machine from a service offering and a template."""

    zone_id: Id[Zone] = param("availability zone for the virtual machine")
    service_offering_id: Id[ServiceOffering] = param("the service offering of the virtual machine")
    template_id: Id[Template] = param("the template of the virtual machine")
    name: str | None = param("host name (RFC 1123); the instance name unless given", default=None)
    display_name: str | None = param("the name shown for the virtual machine; its name unless given", default=None)
    account: str | None = param("an account to create it for; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)
    network_ids: list[Id[Network]] | None = param(
        "the networks of the virtual machine, the default one first", default=None
    )
    ip_to_network_list: MapParameter = param(
        "networks with addresses: iptonetworklist[0].networkid and iptonetworklist[0].ip", default=()
    )
    ip_address: str | None = param("the IP address on the default network", default=None)
    disk_offering_id: Id[DiskOffering] | None = param("the disk offering of a data disk", default=None)
    size: int | None = param("the size of the data disk in GB, for disk offerings of a size to be chosen", default=None)
    group: str | None = param("a group for the virtual machine", default=None)
    key_pair: str | None = param("the name of the SSH key pair that may sign in", default=None)
    hypervisor: str | None = param("the hypervisor; must be that of the template", default=None)
    user_data: str | None = param(
        "base64 data for the virtual machine, at most 32 KB", default=None, length=USER_DATA_LENGTH
    )
    host_id: Id[Host] | None = param("the host to start it on; for root administrators", default=None)
    start_vm: bool = param("false leaves the virtual machine stopped", default=True)

    def run(self, call: Call) -> Started:
        wanted = Order(
            zone_id=self.zone_id,
            service_offering_id=self.service_offering_id,
            template_id=self.template_id,
            name=self.name,
            display_name=self.display_name,
            account=self.account,
            domain_id=self.domain_id,
            network_ids=tuple(self.network_ids) if self.network_ids else None,
            addresses=self.ip_to_network_list,
            ip_address=self.ip_address,
            disk_offering_id=self.disk_offering_id,
            size_gib=self.size,
            group=self.group,
            key_pair=self.key_pair,
            hypervisor=self.hypervisor,
            user_data=self.user_data,
            host_id=self.host_id,
            start=self.start_vm,
        )
        return Started(*deploy(call.tx, call.caller, wanted))


@command("startVirtualMachine", roles=EVERYONE, job=True, emits=types.VM_START, returns=VmResponse)
class StartVirtualMachine(Params):
    """Starts a stopped virtual machine."""

    id: Id[Vm] = param("the ID of the virtual machine")
    host_id: Id[Host] | None = param("the host to start it on; for root administrators", default=None)

    def run(self, call: Call) -> Started:
        return _job(vm.start(call.tx, call.caller, self.id, host_id=self.host_id))


@command("stopVirtualMachine", roles=EVERYONE, job=True, emits=types.VM_STOP, returns=VmResponse)
class StopVirtualMachine(Params):
    """Stops a virtual machine: gracefully, and by force when that fails."""

    id: Id[Vm] = param("the ID of the virtual machine")
    forced: bool = param("true pulls the power at once", default=False)

    def run(self, call: Call) -> Started:
        return _job(vm.stop(call.tx, call.caller, self.id, forced=self.forced))


@command("rebootVirtualMachine", roles=EVERYONE, job=True, emits=types.VM_REBOOT, returns=VmResponse)
class RebootVirtualMachine(Params):
    """Reboots a virtual machine: a stop followed by a start."""

    id: Id[Vm] = param("the ID of the virtual machine")

    def run(self, call: Call) -> Started:
        return _job(vm.reboot(call.tx, call.caller, self.id))


@command("destroyVirtualMachine", roles=EVERYONE, job=True, emits=types.VM_DESTROY, returns=VmResponse)
class DestroyVirtualMachine(Params):
    """Destroys a virtual machine; a running one is stopped abruptly. Its disk is deleted after expunge.delay."""

    id: Id[Vm] = param("the ID of the virtual machine")
    expunge: bool = param("true deletes the disk at once; for root administrators", default=False)

    def run(self, call: Call) -> Started:
        return _job(vm.destroy(call.tx, call.caller, self.id, expunge=self.expunge))


@command("recoverVirtualMachine", roles=DOMAIN_ADMINS, emits=types.VM_CREATE, returns=VmResponse)
class RecoverVirtualMachine(Params):
    """Recovers a destroyed virtual machine, stopped and with new addresses, while its disk is there."""

    id: Id[Vm] = param("the ID of the virtual machine")

    def run(self, call: Call) -> View:
        return vm.recover(call.tx, call.caller, self.id)


@command("updateVirtualMachine", roles=EVERYONE, emits=types.VM_UPDATE, returns=VmResponse)
class UpdateVirtualMachine(Params):
    """Updates what may be changed of a virtual machine at any time."""

    id: Id[Vm] = param("the ID of the virtual machine")
    display_name: str | None = param("the name shown for the virtual machine", default=None)
    group: str | None = param("the group of the virtual machine", default=None)
    ha_enable: bool | None = param("true for high availability", default=None)
    os_type_id: Id[OsType] | None = param("the operating system of the virtual machine", default=None)
    user_data: str | None = param(
        "base64 data for the virtual machine, at most 32 KB", default=None, length=USER_DATA_LENGTH
    )

    def run(self, call: Call) -> View:
        return vm.update(
            call.tx,
            call.caller,
            self.id,
            display_name=self.display_name,
            group=self.group,
            ha_enable=self.ha_enable,
            os_type_id=self.os_type_id,
            user_data=self.user_data,
        )


@command("changeServiceForVirtualMachine", roles=EVERYONE, emits=types.VM_UPGRADE, returns=VmResponse)
class ChangeServiceForVirtualMachine(Params):
    """Changes the service offering of a stopped virtual machine, from its next start on."""

    id: Id[Vm] = param("the ID of the virtual machine")
    service_offering_id: Id[ServiceOffering] = param("the new service offering")

    def run(self, call: Call) -> View:
        return vm.change_offering(call.tx, call.caller, self.id, self.service_offering_id)


@command("listVirtualMachines", roles=EVERYONE, returns=VmResponse)
class ListVirtualMachines(ListParams):
    """Lists virtual machines."""

    account: str | None = param("list those of an account; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("list those of a domain", default=None)
    is_recursive: bool = param("true to include the domains below domainid", default=False)
    list_all: bool = param("true to list everything the caller may see", default=False)
    id: Id[Vm] | None = param("the ID of the virtual machine", default=None)
    ids: list[Id[Vm]] | None = param("the IDs of several virtual machines", default=None)
    name: str | None = param("list those whose host name contains this", default=None)
    state: str | None = param("list those in a state; present for all that are not destroyed", default=None)
    zone_id: Id[Zone] | None = param("list those of a zone", default=None)
    pod_id: Id[Pod] | None = param("list those in a pod", default=None)
    host_id: Id[Host] | None = param("list those on a host", default=None)
    network_id: Id[Network] | None = param("list those on a network", default=None)
    storage_id: Id[StoragePool] | None = param("list those with a volume on a storage pool", default=None)
    template_id: Id[Template] | None = param("list those made from a template", default=None)
    service_offering_id: Id[ServiceOffering] | None = param("list those of a service offering", default=None)
    hypervisor: str | None = param("list those of a hypervisor", default=None)
    group: str | None = param("list those of the group of this name", default=None)
    group_id: Id[InstanceGroup] | None = param("list those of a group", default=None)
    key_pair: str | None = param("list those deployed with the SSH key pair of this name", default=None)
    for_virtual_network: bool | None = param("list those whose default network is virtual, or not", default=None)
    details: list[str] | None = param("kept for today's clients: all details are always told", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *vm.list_page(
                call.tx,
                call.caller,
                account_name=self.account,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                vm_id=self.id,
                vm_ids=self.ids,
                name=self.name,
                state=self.state,
                keyword=self.keyword,
                zone_id=self.zone_id,
                pod_id=self.pod_id,
                host_id=self.host_id,
                network_id=self.network_id,
                storage_id=self.storage_id,
                template_id=self.template_id,
                service_offering_id=self.service_offering_id,
                hypervisor=self.hypervisor,
                group=self.group,
                group_id=self.group_id,
                key_pair=self.key_pair,
                for_virtual_network=self.for_virtual_network,
                page=self.page,
                page_size=self.page_size,
            )
        )


def _job(started: tuple[str, str]) -> Started:
    """Commands on a guest that is there already tell only the job."""
    return Started(started[0])
