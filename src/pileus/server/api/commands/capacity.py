"""Commands on the capacity of the cloud."""

from pileus.server.api.command import ADMINS, Call, ListParams, Page, Response, command, out, param
from pileus.server.domain.ids import Cluster, Host, Id, Pod, Zone
from pileus.server.services import capacity


class CapacityResponse(Response, name="capacity"):
    """How much of something is there and in use in one place."""

    type = out(
        "0 memory, 1 CPU, 2 primary storage used, 3 primary storage allocated, 4 public IP addresses, 5 private IP"
        " addresses, 6 secondary storage, 7 VLANs, 8 addresses of Direct networks",
        "short",
    )
    name = out("the name of the type")
    zone_id = out("the ID of the zone")
    zone_name = out("the name of the zone")
    pod_id = out("the ID of the pod, unless it belongs to the whole zone")
    pod_name = out("the name of the pod")
    cluster_id = out("the ID of the cluster, when one was asked for")
    cluster_name = out("the name of the cluster")
    capacity_used = out("what is in use, in bytes, MHz or a number of them", "long")
    capacity_total = out("what there is, in bytes, MHz or a number of them", "long")
    percent_used = out("the share in use, in percent")


@command("listCapacity", roles=ADMINS, returns=CapacityResponse)
class ListCapacity(ListParams):
    """Lists what the cloud has and uses, per pod or per zone."""

    type: int | None = param("list only this type, 0 to 8", default=None)
    zone_id: Id[Zone] | None = param("list what a zone has", default=None)
    pod_id: Id[Pod] | None = param("list what a pod has", default=None)
    cluster_id: Id[Cluster] | None = param("list what a cluster has", default=None)
    host_id: Id[Host] | None = param("list what a host has", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *capacity.list_page(
                call.tx,
                call.caller,
                type_number=self.type,
                zone_id=self.zone_id,
                pod_id=self.pod_id,
                cluster_id=self.cluster_id,
                host_id=self.host_id,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
