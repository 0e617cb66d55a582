"""Commands on zones."""

from pileus.server.api.command import (
    EVERYONE,
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
from pileus.server.domain.ids import Domain, Id, Zone
from pileus.server.services import zone


class ZoneResponse(Response, name="zone", kind=Zone, load=zone.view):
    """A zone; addresses and VLANs are shown to administrators only."""

    id = out("the ID of the zone")
    name = out("the name of the zone")
    description = out("the description of the zone")
    dns1 = out("the first DNS for the zone")
    dns2 = out("the second DNS for the zone")
    internal_dns1 = out("the first internal DNS for the zone")
    internal_dns2 = out("the second internal DNS for the zone")
    vlan = out("the VLAN range of the zone")
    guest_cidr_address = out("the guest CIDR address of the zone")
    display_text = out("the display text of the zone")
    domain = out("network domain name for the networks in the zone")
    domain_id = out("the ID of the domain the zone belongs to, absent for a public zone")
    domain_name = out("the name of the domain the zone belongs to")
    network_type = out("the network type of the zone: Basic or Advanced")
    security_groups_enabled = out("true if security groups are enabled in the zone", "boolean")
    allocation_state = out("the allocation state of the zone")
    zone_token = out("zone token")
    dhcp_provider = out("the DHCP provider of the zone")
    isolation = out("how guest networks of the zone are kept apart: vxlan or vlan")
    local_storage_enabled = out("true if local storage offering is enabled in the zone", "boolean")


@command("createZone", roles=ROOT_ONLY, returns=ZoneResponse, emits="ZONE.CREATE")
class CreateZone(Params):
    """Creates a zone."""

    name: str = param("the name of the zone")
    network_type: str = param("network type of the zone: Basic or Advanced")
    dns1: str = param("the first DNS for the zone")
    dns2: str | None = param("the second DNS for the zone", default=None)
    internal_dns1: str = param("the first internal DNS for the zone")
    internal_dns2: str | None = param("the second internal DNS for the zone", default=None)
    guest_cidr_address: str | None = param("the guest CIDR of the zone; 10.1.1.0/24 unless given", default=None)
    vlan: str | None = param("the VLAN range of the zone, such as 500-1999", default=None)
    domain: str | None = param("network domain name for the networks in the zone", default=None)
    domain_id: Id[Domain] | None = param("the domain the zone is dedicated to; public without", default=None)
    security_group_enabled: bool = param("true if the zone has security groups", default=False)
    allocation_state: str | None = param("Enabled or Disabled for new guests", default=None)
    isolation: str | None = param("how guest networks are kept apart: vxlan (default) or vlan", default=None)

    def run(self, call: Call) -> View:
        return zone.create(
            call.tx,
            call.caller,
            name=self.name,
            dns1=self.dns1,
            dns2=self.dns2,
            internal_dns1=self.internal_dns1,
            internal_dns2=self.internal_dns2,
            guest_cidr=self.guest_cidr_address,
            vlan=self.vlan,
            network_type=self.network_type,
            security_groups=self.security_group_enabled,
            network_domain=self.domain,
            domain_id=self.domain_id,
            allocation_state=self.allocation_state,
            isolation=self.isolation,
        )


@command("updateZone", roles=ROOT_ONLY, returns=ZoneResponse, emits="ZONE.EDIT")
class UpdateZone(Params):
    """Updates a zone."""

    id: Id[Zone] = param("the ID of the zone")
    name: str | None = param("the name of the zone", default=None)
    dns1: str | None = param("the first DNS for the zone", default=None)
    dns2: str | None = param("the second DNS for the zone", default=None)
    internal_dns1: str | None = param("the first internal DNS for the zone", default=None)
    internal_dns2: str | None = param("the second internal DNS for the zone", default=None)
    guest_cidr_address: str | None = param("the guest CIDR of the zone", default=None)
    vlan: str | None = param("the VLAN range of the zone", default=None)
    domain: str | None = param("network domain name for the networks in the zone", default=None)
    is_public: bool | None = param("true makes a private zone public", default=None)
    allocation_state: str | None = param("Enabled or Disabled for new guests", default=None)
    details: MapParameter = param(
        "details of the zone: router.launcher is namespace or vm; others are not used", default=()
    )
    dhcp_provider: str | None = param("the DHCP provider of the zone: VirtualRouter", default=None)
    dns_search_order: list[str] | None = param("the DNS search order (not used)", default=None)

    def run(self, call: Call) -> View:
        return zone.update(
            call.tx,
            call.caller,
            self.id,
            name=self.name,
            dns1=self.dns1,
            dns2=self.dns2,
            internal_dns1=self.internal_dns1,
            internal_dns2=self.internal_dns2,
            guest_cidr=self.guest_cidr_address,
            vlan=self.vlan,
            network_domain=self.domain,
            is_public=self.is_public,
            allocation_state=self.allocation_state,
            dhcp_provider=self.dhcp_provider,
            details=self.details,
        )


@command("deleteZone", roles=ROOT_ONLY, returns=SuccessResponse, emits="ZONE.DELETE")
class DeleteZone(Params):
    """Deletes an empty zone."""

    id: Id[Zone] = param("the ID of the zone")

    def run(self, call: Call) -> Success:
        zone.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listZones", roles=EVERYONE, returns=ZoneResponse)
class ListZones(ListParams):
    """Lists zones."""

    id: Id[Zone] | None = param("the ID of the zone", default=None)
    available: bool | None = param(
        "true for zones that take new guests, false for zones with your guests", default=None
    )
    domain_id: Id[Domain] | None = param("the ID of the domain the zones are dedicated to", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *zone.list_page(
                call.tx,
                call.caller,
                zone_id=self.id,
                domain_id=self.domain_id,
                available=self.available,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
