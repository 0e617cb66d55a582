"""Commands on network offerings. Guide: "Default and Non-default Networks"."""

from pileus.server.api.command import (
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
from pileus.server.domain.ids import Id, NetworkOffering, Zone
from pileus.server.events import types
from pileus.server.services import network_offering


class NetworkOfferingResponse(Response, name="networkoffering", kind=NetworkOffering, load=network_offering.view):
    """A network offering."""

    id = out("the ID of the network offering")
    name = out("the name of the network offering")
    display_text = out("an alternate display text of the network offering")
    tags = out("the tags of the network offering")
    created = out("when the offering was created", "date")
    max_connections = out("the maximum number of concurrent connections", "integer")
    traffic_type = out("the traffic type: Public, Management, Control, Guest, Vlan or Storage")
    is_default = out("true if the offering is default", "boolean")
    specify_vlan = out("true if networks of the offering name their VLAN", "boolean")
    availability = out("Required, Optional or Unavailable")
    network_rate = out("the network rate in Mb/s", "integer")
    guest_ip_type = out("the guest IP type: Virtual or Direct")
    state = out("the state of the offering")


@command("createNetworkOffering", roles=ROOT_ONLY, returns=NetworkOfferingResponse, emits=types.NETWORK_OFFERING_CREATE)
class CreateNetworkOffering(Params):
    """Creates an offering of guest networks."""

    name: str = param("the name of the network offering")
    display_text: str = param("the display text of the network offering", length=4096)
    traffic_type: str = param("the traffic type: Guest, as all others are built in")
    guest_ip_type: str = param("the guest IP type: Virtual or Direct")
    availability: str | None = param("Required, Optional (the default) or Unavailable", default=None)
    specify_vlan: bool | None = param(
        "true if networks of the offering name their VLAN, which those of Direct offerings always do", default=None
    )
    network_rate: int | None = param(
        "the network rate in Mb/s, 0 for no limit; network.throttling.rate unless given", default=None
    )
    tags: str | None = param("comma separated tags of the network offering", default=None)
    max_connections: int | None = param(
        "the maximum number of concurrent connections of a network's load balancers", default=None
    )

    def run(self, call: Call) -> View:
        return network_offering.create(
            call.tx,
            call.caller,
            name=self.name,
            display_text=self.display_text,
            traffic_type=self.traffic_type,
            guest_ip_type=self.guest_ip_type,
            availability=self.availability,
            specify_vlan=self.specify_vlan,
            rate_mbps=self.network_rate,
            tags=self.tags,
            max_connections=self.max_connections,
        )


@command("updateNetworkOffering", roles=ROOT_ONLY, returns=NetworkOfferingResponse, emits=types.NETWORK_OFFERING_EDIT)
class UpdateNetworkOffering(Params):
    """Updates a network offering."""

    id: Id[NetworkOffering] | None = param("the ID of the network offering", default=None)
    name: str | None = param("the name of the network offering", default=None)
    display_text: str | None = param("the display text of the network offering", default=None, length=4096)
    availability: str | None = param("Required, Optional or Unavailable", default=None)

    def run(self, call: Call) -> View:
        return network_offering.update(
            call.tx,
            call.caller,
            offering_id=self.id,
            name=self.name,
            display_text=self.display_text,
            availability=self.availability,
        )


@command("deleteNetworkOffering", roles=ROOT_ONLY, returns=SuccessResponse, emits=types.NETWORK_OFFERING_DELETE)
class DeleteNetworkOffering(Params):
    """Deletes a network offering that no network has."""

    id: Id[NetworkOffering] = param("the ID of the network offering")

    def run(self, call: Call) -> Success:
        network_offering.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listNetworkOfferings", roles=EVERYONE, returns=NetworkOfferingResponse)
class ListNetworkOfferings(ListParams):
    """Lists network offerings."""

    id: Id[NetworkOffering] | None = param("the ID of the network offering", default=None)
    name: str | None = param("the name of the network offering", default=None)
    display_text: str | None = param("the display text of the network offering", default=None)
    traffic_type: str | None = param("the traffic type", default=None)
    is_default: bool | None = param("true for default offerings", default=None)
    specify_vlan: bool | None = param("true for offerings whose networks name their VLAN", default=None)
    is_shared: bool | None = param("true for offerings of shared networks", default=None)
    availability: str | None = param("Required, Optional or Unavailable", default=None)
    guest_ip_type: str | None = param("the guest IP type: Virtual or Direct", default=None)
    zone_id: Id[Zone] | None = param("list offerings that the zone can serve (all can)", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *network_offering.list_page(
                call.tx,
                call.caller,
                offering_id=self.id,
                name=self.name,
                display_text=self.display_text,
                traffic_type=self.traffic_type,
                is_default=self.is_default,
                specify_vlan=self.specify_vlan,
                is_shared=self.is_shared,
                availability=self.availability,
                guest_ip_type=self.guest_ip_type,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
