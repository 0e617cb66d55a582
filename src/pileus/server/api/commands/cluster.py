"""Commands on clusters and hypervisor types."""

from pileus.server.api.command import (
    ADMINS,
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
from pileus.server.domain.ids import Cluster, Id, Pod, Zone
from pileus.server.services import cluster, host


class ClusterResponse(Response, name="cluster", kind=Cluster, load=cluster.view):
    """A cluster."""

    id = out("the ID of the cluster")
    name = out("the name of the cluster")
    pod_id = out("the ID of the pod of the cluster")
    pod_name = out("the name of the pod of the cluster")
    zone_id = out("the ID of the zone of the cluster")
    zone_name = out("the name of the zone of the cluster")
    hypervisor_type = out("the hypervisor type of the cluster")
    cluster_type = out("the type of the cluster")
    allocation_state = out("the allocation state of the cluster")
    managed_state = out("whether the cloud manages the hosts of the cluster")


class HypervisorResponse(Response, name="hypervisor"):
    """A hypervisor type."""

    name = out("the name of the hypervisor")


@command("addCluster", roles=ROOT_ONLY, returns=ClusterResponse, emits=("CLUSTER.CREATE", "HOST.CREATE"))
class AddCluster(Params):
    """Adds a new cluster. One of hypervisor Simulator that comes with a URL has its first host at once."""

    zone_id: Id[Zone] = param("the ID of the zone of the cluster")
    pod_id: Id[Pod] | None = param("the ID of the pod of the cluster", default=None)
    cluster_name: str = param("the name of the cluster")
    hypervisor: str = param("hypervisor type of the cluster: KVM, Simulator")
    cluster_type: str = param("type of the cluster: CloudManaged, ExternalManaged")
    url: str | None = param(
        "the URL of an external manager of the cluster; for Simulator, of its first host, such as http://sim",
        default=None,
    )
    username: str | None = param("the user name at the external manager", default=None)
    password: str | None = param("the password at the external manager", default=None, secret=True)
    allocation_state: str | None = param("Enabled or Disabled for new guests", default=None)

    def run(self, call: Call) -> View:
        made = cluster.add(
            call.tx,
            call.caller,
            zone_id=self.zone_id,
            pod_id=self.pod_id,
            name=self.cluster_name,
            hypervisor=self.hypervisor,
            cluster_type=self.cluster_type,
            allocation_state=self.allocation_state,
        )
        if self.url:
            host.add_first(
                call.tx,
                call.caller,
                made,
                url=self.url,
                password=self.password,
                allocation_state=self.allocation_state,
            )
        return cluster.view(call.tx, call.caller, made)


@command("updateCluster", roles=ROOT_ONLY, returns=ClusterResponse, emits="CLUSTER.EDIT")
class UpdateCluster(Params):
    """Updates a cluster."""

    id: Id[Cluster] = param("the ID of the cluster")
    cluster_name: str | None = param("the name of the cluster", default=None)
    hypervisor: str | None = param("hypervisor type of the cluster", default=None)
    cluster_type: str | None = param("type of the cluster", default=None)
    allocation_state: str | None = param("Enabled or Disabled for new guests", default=None)
    managed_state: str | None = param("Managed (the only state now)", default=None)

    def run(self, call: Call) -> View:
        return cluster.update(
            call.tx,
            call.caller,
            self.id,
            name=self.cluster_name,
            cluster_type=self.cluster_type,
            hypervisor=self.hypervisor,
            allocation_state=self.allocation_state,
            managed_state=self.managed_state,
        )


@command("deleteCluster", roles=ROOT_ONLY, returns=SuccessResponse, emits="CLUSTER.DELETE")
class DeleteCluster(Params):
    """Deletes an empty cluster."""

    id: Id[Cluster] = param("the ID of the cluster")

    def run(self, call: Call) -> Success:
        cluster.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listClusters", roles=ADMINS, returns=ClusterResponse)
class ListClusters(ListParams):
    """Lists clusters."""

    id: Id[Cluster] | None = param("the ID of the cluster", default=None)
    name: str | None = param("the name of the cluster", default=None)
    pod_id: Id[Pod] | None = param("the ID of the pod", default=None)
    zone_id: Id[Zone] | None = param("the ID of the zone", default=None)
    hypervisor: str | None = param("the hypervisor type", default=None)
    cluster_type: str | None = param("the type of cluster", default=None)
    allocation_state: str | None = param("Enabled or Disabled", default=None)
    managed_state: str | None = param("Managed", default=None)

    def run(self, call: Call) -> Page:
        if self.managed_state is not None and self.managed_state.lower() != "managed":
            return Page([], 0)
        return Page(
            *cluster.list_page(
                call.tx,
                call.caller,
                cluster_id=self.id,
                zone_id=self.zone_id,
                pod_id=self.pod_id,
                name=self.name,
                hypervisor=self.hypervisor,
                cluster_type=self.cluster_type,
                allocation_state=self.allocation_state,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )


@command("listHypervisors", roles=EVERYONE, returns=HypervisorResponse)
class ListHypervisors(ListParams):
    """Lists the hypervisor types of a zone, or of the whole cloud."""

    zone_id: Id[Zone] | None = param("the ID of the zone", default=None)

    def run(self, call: Call) -> Page:
        names = cluster.hypervisors(call.tx, self.zone_id)
        return Page([{"name": name} for name in names], len(names))
