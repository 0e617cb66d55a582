"""Commands on service and disk offerings."""

from pileus.server.api.command import (
    EVERYONE,
    ROOT_ONLY,
    SUCCESS,
    Call,
    ListParams,
    Page,
    Params,
    Response,
    Success,
    SuccessResponse,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import DiskOffering, Domain, Id, ServiceOffering, Vm
from pileus.server.services import offering


class ServiceOfferingResponse(Response, name="serviceoffering", kind=ServiceOffering, load=offering.service_view):
    """A service offering."""

    id = out("the ID of the service offering")
    name = out("the name of the service offering")
    display_text = out("an alternate display text of the service offering")
    cpu_number = out("the number of CPUs", "integer")
    cpu_speed = out("the clock rate of one CPU in MHz", "integer")
    memory = out("the memory in MB", "integer")
    created = out("when the offering was created", "date")
    storage_type = out("the storage type: shared or local")
    offer_ha = out("true if virtual machines are restarted when they fail", "boolean")
    limit_cpu_use = out("true if CPU use is limited to the clock rate", "boolean")
    tags = out("the storage tags of the root disk")
    host_tags = out("the tag a host must have")
    domain_id = out("the domain the offering is for, absent for all")
    domain = out("the name of the domain the offering is for")
    is_system = out("true for an offering of system VMs", "boolean")
    default_use = out("true if the offering is built in", "boolean")
    system_vm_type = out("the type of system VM")
    network_rate = out("the network rate in Mb/s", "integer")
    is_customized = out("true if the user chooses CPU and memory", "boolean")


class DiskOfferingResponse(Response, name="diskoffering", kind=DiskOffering, load=offering.disk_view):
    """A disk offering."""

    id = out("the ID of the disk offering")
    name = out("the name of the disk offering")
    display_text = out("an alternate display text of the disk offering")
    disk_size = out("the size in GB, 0 when customized", "long")
    created = out("when the offering was created", "date")
    is_customized = out("true if the user chooses the size", "boolean")
    tags = out("the storage tags")
    domain_id = out("the domain the offering is for, absent for all")
    domain = out("the name of the domain the offering is for")


@command("createServiceOffering", roles=ROOT_ONLY, returns=ServiceOfferingResponse, emits="SERVICE.OFFERING.CREATE")
class CreateServiceOffering(Params):
    """Creates a service offering."""

    name: str = param("the name of the service offering")
    display_text: str = param("the display text of the service offering", length=4096)
    cpu_number: int = param("the number of CPUs")
    cpu_speed: int = param("the clock rate of one CPU in MHz")
    memory: int = param("the memory in MB")
    network_rate: int | None = param("the network rate in Mb/s", default=None)
    offer_ha: bool = param("true to restart virtual machines that fail", default=False)
    limit_cpu_use: bool = param("true to limit CPU use to the clock rate", default=False)
    storage_type: str | None = param("shared or local", default=None)
    tags: str | None = param("comma-separated storage tags of the root disk", default=None)
    host_tags: str | None = param("the tag a host must have", default=None)
    domain_id: Id[Domain] | None = param("the domain the offering is for; all without", default=None)
    is_system: bool = param("true for an offering of system VMs", default=False)
    system_vm_type: str | None = param("domainrouter, consoleproxy or secondarystoragevm", default=None)

    def run(self, call: Call) -> View:
        return offering.create_service(
            call.tx,
            call.caller,
            name=self.name,
            display_text=self.display_text,
            cpus=self.cpu_number,
            cpu_mhz=self.cpu_speed,
            ram_mib=self.memory,
            rate_mbps=self.network_rate,
            offer_ha=self.offer_ha,
            limit_cpu=self.limit_cpu_use,
            storage_type=self.storage_type,
            tags=self.tags,
            host_tag=self.host_tags,
            domain_id=self.domain_id,
            is_system=self.is_system,
            system_vm_type=self.system_vm_type,
        )


@command("updateServiceOffering", roles=ROOT_ONLY, returns=ServiceOfferingResponse, emits="SERVICE.OFFERING.EDIT")
class UpdateServiceOffering(Params):
    """Renames a service offering."""

    id: Id[ServiceOffering] = param("the ID of the service offering")
    name: str | None = param("the name of the service offering", default=None)
    display_text: str | None = param("the display text of the service offering", default=None, length=4096)

    def run(self, call: Call) -> View:
        return offering.update_service(call.tx, call.caller, self.id, name=self.name, display_text=self.display_text)


@command("deleteServiceOffering", roles=ROOT_ONLY, returns=SuccessResponse, emits="SERVICE.OFFERING.DELETE")
class DeleteServiceOffering(Params):
    """Deletes a service offering; virtual machines that have it keep it."""

    id: Id[ServiceOffering] = param("the ID of the service offering")

    def run(self, call: Call) -> Success:
        offering.delete_service(call.tx, call.caller, self.id)
        return SUCCESS


@command("listServiceOfferings", roles=EVERYONE, returns=ServiceOfferingResponse)
class ListServiceOfferings(ListParams):
    """Lists service offerings."""

    id: Id[ServiceOffering] | None = param("the ID of the service offering", default=None)
    name: str | None = param("the name of the service offering", default=None)
    virtual_machine_id: Id[Vm] | None = param("list the offering of this virtual machine", default=None)
    domain_id: Id[Domain] | None = param("the domain the offering is for", default=None)
    is_system: bool = param("true to list offerings of system VMs", default=False)
    system_vm_type: str | None = param("domainrouter, consoleproxy or secondarystoragevm", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *offering.list_service(
                call.tx,
                call.caller,
                offering_id=self.id,
                name=self.name,
                vm_id=self.virtual_machine_id,
                domain_id=self.domain_id,
                is_system=self.is_system,
                system_vm_type=self.system_vm_type,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )


@command("createDiskOffering", roles=ROOT_ONLY, returns=DiskOfferingResponse, emits="DISK.OFFERING.CREATE")
class CreateDiskOffering(Params):
    """Creates a disk offering."""

    name: str = param("the name of the disk offering")
    display_text: str = param("the display text of the disk offering", length=4096)
    disk_size: int | None = param("the size in GB", default=None)
    customized: bool = param("true if the user chooses the size", default=False)
    tags: str | None = param("comma-separated storage tags", default=None)
    domain_id: Id[Domain] | None = param("the domain the offering is for; all without", default=None)

    def run(self, call: Call) -> View:
        return offering.create_disk(
            call.tx,
            call.caller,
            name=self.name,
            display_text=self.display_text,
            size_gib=self.disk_size,
            customized=self.customized,
            tags=self.tags,
            domain_id=self.domain_id,
        )


@command("updateDiskOffering", roles=ROOT_ONLY, returns=DiskOfferingResponse, emits="DISK.OFFERING.EDIT")
class UpdateDiskOffering(Params):
    """Renames a disk offering."""

    id: Id[DiskOffering] = param("the ID of the disk offering")
    name: str | None = param("the name of the disk offering", default=None)
    display_text: str | None = param("the display text of the disk offering", default=None, length=4096)

    def run(self, call: Call) -> View:
        return offering.update_disk(call.tx, call.caller, self.id, name=self.name, display_text=self.display_text)


@command("deleteDiskOffering", roles=ROOT_ONLY, returns=SuccessResponse, emits="DISK.OFFERING.DELETE")
class DeleteDiskOffering(Params):
    """Deletes a disk offering; volumes that have it keep it."""

    id: Id[DiskOffering] = param("the ID of the disk offering")

    def run(self, call: Call) -> Success:
        offering.delete_disk(call.tx, call.caller, self.id)
        return SUCCESS


@command("listDiskOfferings", roles=EVERYONE, returns=DiskOfferingResponse)
class ListDiskOfferings(ListParams):
    """Lists disk offerings."""

    id: Id[DiskOffering] | None = param("the ID of the disk offering", default=None)
    name: str | None = param("the name of the disk offering", default=None)
    domain_id: Id[Domain] | None = param("the domain the offering is for", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *offering.list_disk(
                call.tx,
                call.caller,
                offering_id=self.id,
                name=self.name,
                domain_id=self.domain_id,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
