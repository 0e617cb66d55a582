"""Commands on primary storage."""

from pileus.server.api.command import (
    ADMINS,
    ROOT_ONLY,
    SUCCESS,
    Call,
    ListParams,
    MapParameter,
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
from pileus.server.domain.ids import Cluster, Id, Pod, StoragePool, Zone
from pileus.server.services import storage_pool


class StoragePoolResponse(Response, name="storagepool", kind=StoragePool, load=storage_pool.view):
    """A primary storage pool."""

    id = out("the ID of the storage pool")
    name = out("the name of the storage pool")
    zone_id = out("the ID of the zone of the storage pool")
    zone_name = out("the name of the zone of the storage pool")
    pod_id = out("the ID of the pod of the storage pool")
    pod_name = out("the name of the pod of the storage pool")
    cluster_id = out("the ID of the cluster of the storage pool")
    cluster_name = out("the name of the cluster of the storage pool")
    ip_address = out("the address of the storage server")
    path = out("the path of the storage pool")
    type = out("the type of the storage pool")
    state = out("the state of the storage pool: Initial until a host has attached it, then Up")
    created = out("when the storage pool was created", "date")
    disk_size_total = out("the size of the storage pool in bytes", "long")
    disk_size_allocated = out("the bytes that volumes have claimed", "long")
    disk_size_used = out("the bytes in use", "long")
    tags = out("the tags of the storage pool")


@command("createStoragePool", roles=ROOT_ONLY, returns=StoragePoolResponse, emits="PRIMARY.STORAGE.CREATE")
class CreateStoragePool(Params):
    """Creates a storage pool for a cluster."""

    zone_id: Id[Zone] = param("the ID of the zone")
    pod_id: Id[Pod] | None = param("the ID of the pod", default=None)
    cluster_id: Id[Cluster] | None = param("the ID of the cluster", default=None)
    name: str = param("the name of the storage pool")
    url: str = param("the place: nfs://server/export, SharedMountPoint:///directory or file:///directory")
    tags: str | None = param("comma-separated tags", default=None)
    details: MapParameter = param("details of the storage pool (not used)", default=())

    def run(self, call: Call) -> View:
        return storage_pool.create(
            call.tx,
            call.caller,
            zone_id=self.zone_id,
            pod_id=self.pod_id,
            cluster_id=self.cluster_id,
            name=self.name,
            url=self.url,
            tags=self.tags,
        )


@command("deleteStoragePool", roles=ROOT_ONLY, returns=SuccessResponse, emits="PRIMARY.STORAGE.DELETE")
class DeleteStoragePool(Params):
    """Deletes a storage pool without volumes."""

    id: Id[StoragePool] = param("the ID of the storage pool")

    def run(self, call: Call) -> Success:
        storage_pool.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listStoragePools", roles=ADMINS, returns=StoragePoolResponse)
class ListStoragePools(ListParams):
    """Lists storage pools."""

    id: Id[StoragePool] | None = param("the ID of the storage pool", default=None)
    name: str | None = param("the name of the storage pool", default=None)
    ip_address: str | None = param("the address of the storage server", default=None)
    path: str | None = param("the path of the storage pool", default=None)
    zone_id: Id[Zone] | None = param("the ID of the zone", default=None)
    pod_id: Id[Pod] | None = param("the ID of the pod", default=None)
    cluster_id: Id[Cluster] | None = param("the ID of the cluster", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *storage_pool.list_page(
                call.tx,
                call.caller,
                pool_id=self.id,
                name=self.name,
                server=self.ip_address,
                path=self.path,
                zone_id=self.zone_id,
                pod_id=self.pod_id,
                cluster_id=self.cluster_id,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
