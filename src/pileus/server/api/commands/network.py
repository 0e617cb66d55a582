"""Commands on guest networks. Guide: "Guest Virtual Networks", "Working with Additional Networks"."""

from pileus.server.api.command import (
    EVERYONE,
    Call,
    ListParams,
    Page,
    Params,
    Response,
    Started,
    SuccessResponse,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import Domain, Id, Network, NetworkOffering, Zone
from pileus.server.events import types
from pileus.server.services import network, network_view
from pileus.server.services.network_direct import Subnet


class CapabilityResponse(Response, name="capability"):
    """What a service of a network can do."""

    name = out("the capability name")
    value = out("the capability value")


class ServiceResponse(Response, name="service"):
    """A service that a network provides."""

    name = out("the service name")
    capability = out("the list of capabilities", "list", nested=CapabilityResponse)


class NetworkResponse(Response, name="network", kind=Network, load=network_view.one):
    """A guest network; its VLAN is shown to root administrators only."""

    id = out("the ID of the network")
    name = out("the name of the network")
    display_text = out("the display text of the network")
    broadcast_domain_type = out("how the network is kept apart: Vlan, Vxlan or Native")
    traffic_type = out("the traffic type of the network")
    gateway = out("the gateway of the network")
    netmask = out("the netmask of the network")
    cidr = out("the address range of the network as a CIDR")
    start_ip = out("the first address that guests may get")
    end_ip = out("the last address that guests may get")
    zone_id = out("the ID of the zone of the network")
    zone_name = out("the name of the zone of the network")
    network_offering_id = out("the ID of the network offering")
    network_offering_name = out("the name of the network offering")
    network_offering_display_text = out("the display text of the network offering")
    network_offering_availability = out("the availability of the network offering")
    is_shared = out("true if several accounts may use the network", "boolean")
    is_system = out("true if the network belongs to the system", "boolean")
    is_default = out("true if the network may be the default one of a virtual machine", "boolean")
    state = out("the state of the network")
    related = out("the ID of the related network")
    broadcast_uri = out("the broadcast domain of the network; for administrators")
    dns1 = out("the first DNS of the network")
    dns2 = out("the second DNS of the network")
    type = out("the type of the network: Virtual or Direct")
    vlan = out("the VLAN of the network; for administrators")
    account = out("the account of the network; absent for a shared one")
    domain_id = out("the ID of the domain of the network")
    domain = out("the name of the domain of the network")
    service = out("the services the network provides", "list", nested=ServiceResponse)
    network_domain = out("the DNS domain of the network")
    security_group_enabled = out("true if security groups are enabled on the network", "boolean")
    tags = out("comma separated tags of the network")
    acl_type = out("who may use the network: Account or Domain")
    subdomain_access = out("true if domains below may use the network too", "boolean")
    can_use_for_deploy = out("true if virtual machines can be deployed into the network", "boolean")


@command("createNetwork", roles=EVERYONE, returns=NetworkResponse, emits=types.NETWORK_CREATE)
class CreateNetwork(Params):
    """Creates a guest network: a Virtual one, or (for root administrators) a Direct one with VLAN and address range."""

    name: str = param("the name of the network")
    display_text: str = param("the display text of the network")
    network_offering_id: Id[NetworkOffering] = param("the network offering of the network")
    zone_id: Id[Zone] = param("the zone of the network")
    gateway: str | None = param("the gateway of the network", default=None)
    netmask: str | None = param("the netmask of the network", default=None)
    start_ip: str | None = param("the first address guests of a Direct network may get", default=None)
    end_ip: str | None = param("the last address guests of a Direct network may get", default=None)
    vlan: str | None = param("the VLAN id of a Direct network", default=None)
    account: str | None = param("the account the network is for", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account, or that a shared network is for", default=None)
    is_shared: bool | None = param("true if several accounts may use the network", default=None)
    is_default: bool | None = param(
        "true if the network may be the default one of a virtual machine; true for Virtual networks unless given",
        default=None,
    )
    network_domain: str | None = param("the DNS domain of the network", default=None)
    tags: list[str] | None = param("tags of the network", default=None)

    def run(self, call: Call) -> View:
        return network.create(
            call.tx,
            call.caller,
            name=self.name,
            display_text=self.display_text,
            offering_id=self.network_offering_id,
            zone_id=self.zone_id,
            addresses=Subnet(self.gateway, self.netmask, self.start_ip, self.end_ip),
            vlan=self.vlan,
            account_name=self.account,
            domain_id=self.domain_id,
            is_shared=self.is_shared,
            is_default=self.is_default,
            network_domain=self.network_domain,
            tags=self.tags,
        )


@command("listNetworks", roles=EVERYONE, returns=NetworkResponse)
class ListNetworks(ListParams):
    """Lists guest networks: one's own and those shared with one's domain."""

    id: Id[Network] | None = param("the ID of the network", default=None)
    account: str | None = param("the account of the networks", default=None)
    domain_id: Id[Domain] | None = param("the domain of the networks", default=None)
    zone_id: Id[Zone] | None = param("the zone of the networks", default=None)
    type: str | None = param("the type of the networks: Virtual or Direct", default=None)
    is_system: bool | None = param("true lists the networks of the system; for root administrators", default=None)
    is_shared: bool | None = param("true if the network is shared", default=None)
    is_default: bool | None = param("true if the network is a default one", default=None)
    traffic_type: str | None = param("the traffic type of the networks: Guest, Public or Control", default=None)
    list_all: bool | None = param("true lists all networks the caller may see", default=None)
    is_recursive: bool | None = param("true includes domains below domainid", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *network_view.list_page(
                call.tx,
                call.caller,
                network_id=self.id,
                account_name=self.account,
                domain_id=self.domain_id,
                zone_id=self.zone_id,
                type=self.type,
                is_system=self.is_system,
                is_shared=self.is_shared,
                is_default=self.is_default,
                traffic_type=self.traffic_type,
                keyword=self.keyword,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                page_number=self.page,
                page_size=self.page_size,
            )
        )


@command("updateNetwork", roles=EVERYONE, returns=NetworkResponse, job=True, emits=types.NETWORK_UPDATE)
class UpdateNetwork(Params):
    """Updates the names, tags or DNS domain of a network."""

    id: Id[Network] = param("the ID of the network")
    name: str | None = param("the new name of the network", default=None)
    display_text: str | None = param("the new display text of the network", default=None)
    tags: list[str] | None = param("the new tags of the network", default=None)
    network_domain: str | None = param("the new DNS domain of the network", default=None)

    def run(self, call: Call) -> Started:
        return Started(
            network.update(
                call.tx,
                call.caller,
                self.id,
                name=self.name,
                display_text=self.display_text,
                tags=self.tags,
                network_domain=self.network_domain,
            )
        )


@command("restartNetwork", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.NETWORK_RESTART)
class RestartNetwork(Params):
    """Brings the router of a network back to what is declared, or replaces it."""

    id: Id[Network] = param("the ID of the network")
    cleanup: bool = param("true destroys the router and creates another", default=False)

    def run(self, call: Call) -> Started:
        return Started(network.restart(call.tx, call.caller, self.id, cleanup=self.cleanup))


@command("deleteNetwork", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.NETWORK_DELETE)
class DeleteNetwork(Params):
    """Deletes a network that no virtual machine is on."""

    id: Id[Network] = param("the ID of the network")

    def run(self, call: Call) -> Started:
        return Started(network.delete(call.tx, call.caller, self.id))
