"""Commands on virtual routers. Guide: "Virtual Router"."""

from pileus.server.api.command import (
    DOMAIN_ADMINS,
    Call,
    ListParams,
    Page,
    Params,
    Response,
    Started,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import Domain, Host, Id, Network, Pod, Router, ServiceOffering, Zone
from pileus.server.events import types
from pileus.server.services import router


class RouterResponse(Response, name="router", kind=Router, load=router.view):
    """A virtual router; its host is shown to root administrators only."""

    id = out("the ID of the router")
    name = out("the name of the router")
    zone_id = out("the ID of the zone of the router")
    zone_name = out("the name of the zone of the router")
    dns1 = out("the first DNS of the router")
    dns2 = out("the second DNS of the router")
    network_domain = out("the DNS domain of the router's network")
    gateway = out("the gateway of the router")
    pod_id = out("the ID of the pod of the router")
    host_id = out("the ID of the host of the router; for administrators")
    host_name = out("the name of the host of the router; for administrators")
    private_ip = out("the private address of the router")
    private_mac_address = out("the MAC address of the private card")
    private_netmask = out("the netmask of the private card")
    private_network_id = out("the ID of the private network")
    public_ip = out("the public address of the router")
    public_mac_address = out("the MAC address of the public card")
    public_netmask = out("the netmask of the public card")
    public_network_id = out("the ID of the public network")
    guest_ip_address = out("the address of the router on its guest network")
    guest_mac_address = out("the MAC address of the guest card")
    guest_netmask = out("the netmask of the guest card")
    guest_network_id = out("the ID of the guest network")
    guest_network_name = out("the name of the guest network")
    link_local_ip = out("the link-local address of the router")
    link_local_mac_address = out("the MAC address of the link-local card")
    link_local_netmask = out("the netmask of the link-local card")
    link_local_network_id = out("the ID of the link-local network")
    template_id = out("the ID of the template of the router")
    created = out("when the router was created", "date")
    state = out("the state of the router", "state")
    account = out("the account of the router")
    domain_id = out("the ID of the domain of the router")
    domain = out("the name of the domain of the router")
    service_offering_id = out("the ID of the service offering of the router")
    service_offering_name = out("the name of the service offering of the router")
    is_redundant_router = out("true if the router is one of a redundant pair", "boolean")
    redundant_state = out("the state within the redundant pair")
    hypervisor = out("the hypervisor of the router")
    role = out("what the router is for")


@command("listRouters", roles=DOMAIN_ADMINS, returns=RouterResponse)
class ListRouters(ListParams):
    """Lists virtual routers."""

    id: Id[Router] | None = param("the ID of the router", default=None)
    name: str | None = param("the name of the router", default=None)
    state: str | None = param("the state of the routers", default=None)
    zone_id: Id[Zone] | None = param("the zone of the routers", default=None)
    pod_id: Id[Pod] | None = param("the pod of the routers", default=None)
    host_id: Id[Host] | None = param("the host of the routers", default=None)
    network_id: Id[Network] | None = param("the network of the routers", default=None)
    account: str | None = param("the account of the routers", default=None)
    domain_id: Id[Domain] | None = param("the domain of the routers", default=None)
    list_all: bool | None = param("true lists all routers the caller may see", default=None)
    is_recursive: bool | None = param("true includes domains below domainid", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *router.list_page(
                call.tx,
                call.caller,
                router_id=self.id,
                name=self.name,
                state=self.state,
                zone_id=self.zone_id,
                pod_id=self.pod_id,
                host_id=self.host_id,
                network_id=self.network_id,
                account_name=self.account,
                domain_id=self.domain_id,
                keyword=self.keyword,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                page_number=self.page,
                page_size=self.page_size,
            )
        )


@command("changeServiceForRouter", roles=DOMAIN_ADMINS, returns=RouterResponse, emits=types.ROUTER_UPGRADE)
class ChangeServiceForRouter(Params):
    """Changes the service offering of a stopped router; its next start has the new size."""

    id: Id[Router] = param("the ID of the router")
    service_offering_id: Id[ServiceOffering] = param("a service offering of system VMs, for domain routers")

    def run(self, call: Call) -> View:
        return router.change_offering(call.tx, call.caller, self.id, self.service_offering_id)


@command("startRouter", roles=DOMAIN_ADMINS, returns=RouterResponse, job=True, emits=types.ROUTER_START)
class StartRouter(Params):
    """Starts a stopped router."""

    id: Id[Router] = param("the ID of the router")

    def run(self, call: Call) -> Started:
        return Started(router.start(call.tx, call.caller, self.id))


@command("stopRouter", roles=DOMAIN_ADMINS, returns=RouterResponse, job=True, emits=types.ROUTER_STOP)
class StopRouter(Params):
    """Stops a running router; guests lose DHCP, DNS and the way out until it is started."""

    id: Id[Router] = param("the ID of the router")
    forced: bool = param("true does not wait for a host that is away", default=False)

    def run(self, call: Call) -> Started:
        return Started(router.stop(call.tx, call.caller, self.id, forced=self.forced))


@command("rebootRouter", roles=DOMAIN_ADMINS, returns=RouterResponse, job=True, emits=types.ROUTER_REBOOT)
class RebootRouter(Params):
    """Reboots a running router."""

    id: Id[Router] = param("the ID of the router")

    def run(self, call: Call) -> Started:
        return Started(router.reboot(call.tx, call.caller, self.id))


@command("destroyRouter", roles=DOMAIN_ADMINS, returns=RouterResponse, job=True, emits=types.ROUTER_DESTROY)
class DestroyRouter(Params):
    """Destroys a router; its network gets another when a guest that starts needs it."""

    id: Id[Router] = param("the ID of the router")

    def run(self, call: Call) -> Started:
        return Started(router.destroy(call.tx, call.caller, self.id))
