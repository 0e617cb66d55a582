"""Commands on where virtual machines are placed. Guide: "Host Allocation"."""

from pileus.server.api.command import EVERYONE, Call, Params, Response, View, command, out, param
from pileus.server.domain.ids import DiskOffering, Domain, Host, Id, Network, ServiceOffering, Template, Zone
from pileus.server.services import deployment
from pileus.server.services.vm_deploy import Order


class StoragePoolChoiceResponse(Response, name="storagepool"):
    """Where a volume would lie."""

    volume_type = out("the type of the volume: ROOT or DATADISK")
    id = out("the ID of the storage pool")
    name = out("the name of the storage pool")


class RefusalKindResponse(Response, name="refusalkind"):
    """How many hosts have one kind of reason."""

    reason = out("the kind of reason")
    hosts = out("the number of hosts", "integer")


class RefusalResponse(Response, name="refusal"):
    """A host that would not take the virtual machine."""

    host_id = out("the ID of the host")
    host_name = out("the name of the host")
    reason = out("why it would not take it")


class DeploymentExplanationResponse(Response, name="deploymentexplanation"):
    """Where a virtual machine would be placed; hosts and storage pools are shown to root administrators only."""

    possible = out("true if there is room for it now", "boolean")
    summary = out("the answer in words")
    host_id = out("the ID of the host that would be taken; for root administrators")
    host_name = out("the name of the host that would be taken; for root administrators")
    storage_pool = out("where its volumes would lie; for root administrators", "list", nested=StoragePoolChoiceResponse)
    hosts_with_room = out("the number of hosts that could take it; for root administrators", "integer")
    hosts_refused = out("the number of hosts of the zone that could not; for root administrators", "integer")
    refusal_kind = out("why they could not, by kind; for root administrators", "list", nested=RefusalKindResponse)
    refusal = out(
        "why they could not, host by host, of at most 500; for root administrators", "list", nested=RefusalResponse
    )


@command("explainDeployment", roles=EVERYONE, reads=True, returns=DeploymentExplanationResponse)
class ExplainDeployment(Params):
    """Tells where a virtual machine would be placed now, and why not elsewhere, without deploying it."""

    zone_id: Id[Zone] = param("availability zone of the virtual machine")
    service_offering_id: Id[ServiceOffering] = param("the service offering of the virtual machine")
    template_id: Id[Template] = param("the template of the virtual machine")
    account: str | None = param("an account it would be for; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)
    network_ids: list[Id[Network]] | None = param("the networks of the virtual machine", default=None)
    disk_offering_id: Id[DiskOffering] | None = param("the disk offering of a data disk", default=None)
    size: int | None = param("the size of the data disk in GB, for disk offerings of a size to be chosen", default=None)
    hypervisor: str | None = param("the hypervisor; must be that of the template", default=None)
    host_id: Id[Host] | None = param("the host it would be started on; for root administrators", default=None)

    def run(self, call: Call) -> View:
        wanted = Order(
            zone_id=self.zone_id,
            service_offering_id=self.service_offering_id,
            template_id=self.template_id,
            account=self.account,
            domain_id=self.domain_id,
            network_ids=tuple(self.network_ids) if self.network_ids else None,
            disk_offering_id=self.disk_offering_id,
            size_gib=self.size,
            hypervisor=self.hypervisor,
            host_id=self.host_id,
        )
        return deployment.explain(call.tx, call.caller, wanted)
