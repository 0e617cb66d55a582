"""Commands on volumes."""

from pileus.server.api.command import EVERYONE, Call, ListParams, Page, Response, command, out, param
from pileus.server.domain.ids import Domain, Host, Id, Pod, StoragePool, Vm, Volume, Zone
from pileus.server.services import volume


class VolumeResponse(Response, name="volume", kind=Volume, load=volume.view):
    """A volume."""

    id = out("the ID of the volume")
    name = out("the name of the volume")
    zone_id = out("the ID of its zone")
    zone_name = out("the name of its zone")
    type = out("ROOT or DATADISK")
    device_id = out("the number of the device in the machine; 0 is the root disk", "long")
    virtual_machine_id = out("the ID of the machine it is attached to")
    vm_name = out("the name of that machine")
    vm_display_name = out("the display name of that machine")
    vm_state = out("the state of that machine")
    size = out("the size of the disk in bytes", "long")
    created = out("when the volume was created", "date")
    state = out("Allocated, Creating, Ready or Destroy")
    account = out("the name of the account it belongs to")
    domain_id = out("the ID of the domain it belongs to")
    domain = out("the name of the domain it belongs to")
    storage_type = out("shared, or local to one host")
    source_id = out("the ID of what it was made from")
    source_type = out("the kind of what it was made from")
    hypervisor = out("the hypervisor it is for")
    template_id = out("the ID of the template of a root disk")
    template_name = out("the name of that template")
    template_display_text = out("the text shown for that template")
    disk_offering_id = out("the ID of its disk offering")
    disk_offering_name = out("the name of its disk offering")
    disk_offering_display_text = out("the text shown for its disk offering")
    storage = out("the name of the storage pool that holds it, for root administrators")
    storage_id = out("the ID of the storage pool that holds it, for root administrators")
    path = out("the name of its file in the storage pool, for root administrators")
    snapshot_id = out("the ID of the snapshot it was made from")
    attached = out("when it was attached", "date")
    destroyed = out("true if it is being deleted", "boolean")
    service_offering_id = out("the ID of the service offering of a root disk")
    service_offering_name = out("the name of that service offering")
    service_offering_display_text = out("the text shown for that service offering")
    is_extractable = out("true if it may be downloaded", "boolean")
    job_id = out("the ID of the job that changes it now", "string")
    job_status = out("the status of that job", "integer")


@command("listVolumes", roles=EVERYONE, returns=VolumeResponse)
class ListVolumes(ListParams):
    """Lists volumes."""

    id: Id[Volume] | None = param("the ID of the volume", default=None)
    ids: list[Id[Volume]] | None = param("IDs of volumes", default=None)
    name: str | None = param("the name of the volume", default=None)
    type: str | None = param("ROOT or DATADISK", default=None)
    state: str | None = param("the state of the volume", default=None)
    zone_id: Id[Zone] | None = param("the ID of the zone", default=None)
    pod_id: Id[Pod] | None = param("the ID of the pod; administrators only", default=None)
    host_id: Id[Host] | None = param("volumes of machines on this host; administrators only", default=None)
    storage_id: Id[StoragePool] | None = param("the ID of the storage pool; administrators only", default=None)
    virtual_machine_id: Id[Vm] | None = param("the ID of the machine", default=None)
    account: str | None = param("volumes of this account; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("volumes of this domain", default=None)
    list_all: bool | None = param("volumes of all accounts the caller may see", default=None)
    is_recursive: bool | None = param("with domainid: of the domains below it, too", default=None)

    def run(self, call: Call) -> Page:
        ids = [*(self.ids or ()), *((self.id,) if self.id is not None else ())]
        return Page(
            *volume.list_page(
                call.tx,
                call.caller,
                volume_ids=[int(each) for each in ids] if ids else None,
                name=self.name,
                kind=self.type,
                zone_id=self.zone_id,
                pod_id=self.pod_id,
                host_id=self.host_id,
                pool_id=self.storage_id,
                vm_id=self.virtual_machine_id,
                state=self.state,
                account_name=self.account,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
