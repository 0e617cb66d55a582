"""Commands on pods."""

from pileus.server.api.command import (
    ADMINS,
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
from pileus.server.domain.ids import Id, Pod, Zone
from pileus.server.services import pod


class PodResponse(Response, name="pod", kind=Pod, load=pod.view):
    """A pod."""

    id = out("the ID of the pod")
    name = out("the name of the pod")
    zone_id = out("the ID of the zone of the pod")
    zone_name = out("the name of the zone of the pod")
    gateway = out("the gateway of the pod")
    netmask = out("the netmask of the pod")
    start_ip = out("the first private address of the pod")
    end_ip = out("the last private address of the pod")
    allocation_state = out("the allocation state of the pod")


@command("createPod", roles=ROOT_ONLY, returns=PodResponse, emits="POD.CREATE")
class CreatePod(Params):
    """Creates a pod in a zone."""

    zone_id: Id[Zone] = param("the ID of the zone of the pod")
    name: str = param("the name of the pod")
    gateway: str = param("the gateway of the pod")
    netmask: str = param("the netmask of the pod")
    start_ip: str = param("the first private address of the pod")
    end_ip: str | None = param("the last private address of the pod; startip unless given", default=None)
    allocation_state: str | None = param("Enabled or Disabled for new guests", default=None)

    def run(self, call: Call) -> View:
        return pod.create(
            call.tx,
            call.caller,
            zone_id=self.zone_id,
            name=self.name,
            gateway=self.gateway,
            netmask=self.netmask,
            start_ip=self.start_ip,
            end_ip=self.end_ip,
            allocation_state=self.allocation_state,
        )


@command("updatePod", roles=ROOT_ONLY, returns=PodResponse, emits="POD.EDIT")
class UpdatePod(Params):
    """Updates a pod."""

    id: Id[Pod] = param("the ID of the pod")
    name: str | None = param("the name of the pod", default=None)
    gateway: str | None = param("the gateway of the pod", default=None)
    netmask: str | None = param("the netmask of the pod", default=None)
    start_ip: str | None = param("the first private address of the pod", default=None)
    end_ip: str | None = param("the last private address of the pod", default=None)
    allocation_state: str | None = param("Enabled or Disabled for new guests", default=None)

    def run(self, call: Call) -> View:
        return pod.update(
            call.tx,
            call.caller,
            self.id,
            name=self.name,
            gateway=self.gateway,
            netmask=self.netmask,
            start_ip=self.start_ip,
            end_ip=self.end_ip,
            allocation_state=self.allocation_state,
        )


@command("deletePod", roles=ROOT_ONLY, returns=SuccessResponse, emits="POD.DELETE")
class DeletePod(Params):
    """Deletes an empty pod."""

    id: Id[Pod] = param("the ID of the pod")

    def run(self, call: Call) -> Success:
        pod.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listPods", roles=ADMINS, returns=PodResponse)
class ListPods(ListParams):
    """Lists pods."""

    id: Id[Pod] | None = param("the ID of the pod", default=None)
    name: str | None = param("the name of the pod", default=None)
    zone_id: Id[Zone] | None = param("the ID of the zone", default=None)
    allocation_state: str | None = param("Enabled or Disabled", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *pod.list_page(
                call.tx,
                call.caller,
                pod_id=self.id,
                zone_id=self.zone_id,
                name=self.name,
                allocation_state=self.allocation_state,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
