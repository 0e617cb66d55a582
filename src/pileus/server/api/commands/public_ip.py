"""Commands on public addresses. Guide: "IP Forwarding and Firewalling"."""

from pileus.server.api.command import (
    EVERYONE,
    Call,
    ListParams,
    Page,
    Params,
    Response,
    Started,
    SuccessResponse,
    command,
    out,
    param,
)
from pileus.server.domain.ids import Domain, Id, Network, PublicIp, VlanIpRange, Zone
from pileus.server.events import types
from pileus.server.services import public_ip


class PublicIpResponse(Response, name="ipaddress", kind=PublicIp, load=public_ip.view):
    """A public address, or an address of a Direct network."""

    id = out("the ID of the address")
    ip_address = out("the address")
    allocated = out("when the address was acquired", "date")
    zone_id = out("the ID of the zone of the address")
    zone_name = out("the name of the zone of the address")
    is_source_nat = out("true if guests show this address to the outside", "boolean")
    account = out("the account of the address")
    domain_id = out("the ID of the domain of the address")
    domain = out("the name of the domain of the address")
    for_virtual_network = out("true for an address of virtual networks", "boolean")
    vlan_id = out("the ID of the VLAN IP range of the address; for administrators")
    vlan_name = out("the VLAN of the address; for administrators")
    is_static_nat = out("true if the address is mapped to one virtual machine", "boolean")
    is_system = out("true if the address belongs to the system", "boolean")
    virtual_machine_id = out("the ID of the virtual machine that has the address")
    virtual_machine_name = out("the name of the virtual machine that has the address")
    virtual_machine_display_name = out("the display name of the virtual machine that has the address")
    associated_network_id = out("the ID of the network the address is associated with")
    associated_network_name = out("the name of the network the address is associated with")
    network_id = out("the ID of the network the address lies in")
    state = out("the state of the address: Allocating, Allocated, Releasing or Free")


class ListedPublicIpResponse(PublicIpResponse, name="publicipaddress"):
    """A public address in a list, where the wire has another name for it."""


@command("associateIpAddress", roles=EVERYONE, returns=PublicIpResponse, job=True, emits=types.NET_IPASSIGN)
class AssociateIpAddress(Params):
    """Acquires a public address for a virtual network."""

    zone_id: Id[Zone] = param("the zone to acquire the address in")
    network_id: Id[Network] | None = param(
        "the network of the address; the account's own virtual network unless given", default=None
    )
    account: str | None = param("the account to acquire it for", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)

    def run(self, call: Call) -> Started:
        return Started(
            *public_ip.associate(
                call.tx,
                call.caller,
                zone_id=self.zone_id,
                network_id=self.network_id,
                account_name=self.account,
                domain_id=self.domain_id,
            )
        )


@command("disassociateIpAddress", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.NET_IPRELEASE)
class DisassociateIpAddress(Params):
    """Releases a public address with its rules."""

    id: Id[PublicIp] = param("the ID of the address")

    def run(self, call: Call) -> Started:
        return Started(public_ip.disassociate(call.tx, call.caller, self.id))


@command("listPublicIpAddresses", roles=EVERYONE, returns=ListedPublicIpResponse)
class ListPublicIpAddresses(ListParams):
    """Lists public addresses."""

    id: Id[PublicIp] | None = param("the ID of the address", default=None)
    ip_address: str | None = param("the address", default=None)
    account: str | None = param("the account of the addresses", default=None)
    domain_id: Id[Domain] | None = param("the domain of the addresses", default=None)
    zone_id: Id[Zone] | None = param("the zone of the addresses", default=None)
    vlan_id: Id[VlanIpRange] | None = param("the VLAN IP range of the addresses", default=None)
    associated_network_id: Id[Network] | None = param("the network the addresses are associated with", default=None)
    allocated_only: bool = param("false lists free addresses too; for root administrators", default=True)
    for_virtual_network: bool = param("false lists the addresses of Direct networks", default=True)
    for_load_balancing: bool | None = param(
        "true lists only addresses that load balancing can use; any address can", default=None
    )
    is_source_nat: bool | None = param("true lists only source NAT addresses", default=None)
    list_all: bool | None = param("true lists all addresses the caller may see", default=None)
    is_recursive: bool | None = param("true includes domains below domainid", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *public_ip.list_page(
                call.tx,
                call.caller,
                public_ip_id=self.id,
                ip_address=self.ip_address,
                zone_id=self.zone_id,
                range_id=self.vlan_id,
                network_id=self.associated_network_id,
                account_name=self.account,
                domain_id=self.domain_id,
                allocated_only=self.allocated_only,
                for_virtual_network=self.for_virtual_network,
                is_source_nat=self.is_source_nat,
                keyword=self.keyword,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                page_number=self.page,
                page_size=self.page_size,
            )
        )
