"""Commands on fleets of simulated hosts. Not part of API 2.2."""

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
from pileus.server.domain.ids import Fleet, Id
from pileus.server.services import fleet


class FleetResponse(Response, name="fleet", kind=Fleet, load=fleet.view):
    """A fleet of simulated hosts."""

    id = out("the ID of the fleet")
    name = out("the name of the fleet")
    hosts = out("the number of hosts that the fleet has", "integer")
    connected = out("true while the fleet is connected to a management server", "boolean")
    management_server_id = out("the management server that holds the fleet's connection")
    disconnected = out("when the fleet was lost", "date")
    created = out("when the fleet was added", "date")


@command("addFleet", roles=ROOT_ONLY, returns=FleetResponse, emits="FLEET.CREATE")
class AddFleet(Params):
    """Adds a fleet: an agent that makes the hosts of hypervisor Simulator which addHost adds."""

    name: str = param("the name of the fleet")
    token: str = param("the one-time secret, at least 16 characters, with which the fleet's agent enrols", secret=True)

    def run(self, call: Call) -> View:
        return fleet.add(call.tx, call.caller, name=self.name, token=self.token)


@command("deleteFleet", roles=ROOT_ONLY, returns=SuccessResponse, emits="FLEET.DELETE")
class DeleteFleet(Params):
    """Deletes a fleet. Its agent can never connect again; other fleets take its hosts."""

    id: Id[Fleet] = param("the ID of the fleet")

    def run(self, call: Call) -> Success:
        fleet.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listFleets", roles=ROOT_ONLY, returns=FleetResponse)
class ListFleets(ListParams):
    """Lists fleets of simulated hosts."""

    id: Id[Fleet] | None = param("the ID of the fleet", default=None)
    name: str | None = param("the name of the fleet", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *fleet.list_page(
                call.tx,
                call.caller,
                fleet_id=self.id,
                name=self.name,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
