"""Commands on VLAN IP ranges. Guide: "Public IP Addresses"."""

from pileus.server.api.command import (
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
from pileus.server.domain.ids import Domain, Id, Network, Pod, VlanIpRange, Zone
from pileus.server.events import types
from pileus.server.services import vlan_ip_range


class VlanIpRangeResponse(Response, name="vlaniprange", kind=VlanIpRange, load=vlan_ip_range.view):
    """A range of public addresses, or of addresses of a Direct network."""

    id = out("the ID of the range")
    for_virtual_network = out("true for public addresses of virtual networks", "boolean")
    zone_id = out("the ID of the zone of the range")
    vlan = out("the VLAN of the range: its id, or untagged")
    account = out("the account the range is dedicated to")
    domain_id = out("the ID of the domain of that account")
    domain = out("the name of the domain of that account")
    pod_id = out("the ID of the pod of the range")
    pod_name = out("the name of the pod of the range")
    gateway = out("the gateway of the range")
    netmask = out("the netmask of the range")
    description = out("the description of the range")
    start_ip = out("the first address of the range")
    end_ip = out("the last address of the range")
    network_id = out("the ID of the Direct network of the range")


@command("createVlanIpRange", roles=ROOT_ONLY, returns=VlanIpRangeResponse, emits=types.VLAN_IP_RANGE_CREATE)
class CreateVlanIpRange(Params):
    """Creates a range of public addresses, or adds addresses to a Direct network."""

    start_ip: str = param("the first address of the range")
    end_ip: str | None = param("the last address of the range; the first unless given", default=None)
    gateway: str | None = param("the gateway of the range", default=None)
    netmask: str | None = param("the netmask of the range", default=None)
    vlan: str | None = param("the VLAN id of the range; untagged unless given", default=None)
    zone_id: Id[Zone] | None = param("the zone of the range", default=None)
    network_id: Id[Network] | None = param("the Direct network to add addresses to", default=None)
    pod_id: Id[Pod] | None = param("the pod of the range, in Basic zones", default=None)
    account: str | None = param("the account to dedicate the range to", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)
    for_virtual_network: bool = param("true for public addresses of virtual networks", default=True)

    def run(self, call: Call) -> View:
        return vlan_ip_range.create(
            call.tx,
            call.caller,
            start_ip=self.start_ip,
            end_ip=self.end_ip,
            gateway=self.gateway,
            netmask=self.netmask,
            vlan=self.vlan,
            zone_id=self.zone_id,
            network_id=self.network_id,
            pod_id=self.pod_id,
            account_name=self.account,
            domain_id=self.domain_id,
            for_virtual_network=self.for_virtual_network,
        )


@command("deleteVlanIpRange", roles=ROOT_ONLY, returns=SuccessResponse, emits=types.VLAN_IP_RANGE_DELETE)
class DeleteVlanIpRange(Params):
    """Deletes a range none of whose addresses is in use."""

    id: Id[VlanIpRange] = param("the ID of the range")

    def run(self, call: Call) -> Success:
        vlan_ip_range.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listVlanIpRanges", roles=ROOT_ONLY, returns=VlanIpRangeResponse)
class ListVlanIpRanges(ListParams):
    """Lists VLAN IP ranges."""

    id: Id[VlanIpRange] | None = param("the ID of the range", default=None)
    zone_id: Id[Zone] | None = param("the zone of the ranges", default=None)
    network_id: Id[Network] | None = param("the Direct network of the ranges", default=None)
    pod_id: Id[Pod] | None = param("the pod of the ranges", default=None)
    vlan: str | None = param("the VLAN of the ranges", default=None)
    account: str | None = param("the account the ranges are dedicated to", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)
    for_virtual_network: bool | None = param("true lists only public addresses of virtual networks", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *vlan_ip_range.list_page(
                call.tx,
                call.caller,
                range_id=self.id,
                zone_id=self.zone_id,
                network_id=self.network_id,
                pod_id=self.pod_id,
                vlan=self.vlan,
                account_name=self.account,
                domain_id=self.domain_id,
                for_virtual_network=self.for_virtual_network,
                keyword=self.keyword,
                page_number=self.page,
                page_size=self.page_size,
            )
        )
