"""Commands on instance groups."""

from pileus.server.api.command import (
    EVERYONE,
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
from pileus.server.domain.ids import Domain, Id, InstanceGroup
from pileus.server.events import types
from pileus.server.services import instance_group


class InstanceGroupResponse(Response, name="instancegroup", kind=InstanceGroup, load=instance_group.view):
    """A group of virtual machines."""

    id = out("the ID of the instance group")
    name = out("the name of the instance group")
    created = out("when the instance group was created", "date")
    account = out("the account that owns it")
    domain_id = out("the ID of the domain of the account")
    domain = out("the name of the domain of the account")


@command("createInstanceGroup", roles=EVERYONE, returns=InstanceGroupResponse, emits=types.INSTANCE_GROUP_CREATE)
class CreateInstanceGroup(Params):
    """Creates a group for virtual machines."""

    name: str = param("the name of the instance group, unique in the account")
    account: str | None = param("an account to create it for; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)

    def run(self, call: Call) -> View:
        return instance_group.create(
            call.tx, call.caller, name=self.name, account_name=self.account, domain_id=self.domain_id
        )


@command("updateInstanceGroup", roles=EVERYONE, returns=InstanceGroupResponse, emits=types.INSTANCE_GROUP_UPDATE)
class UpdateInstanceGroup(Params):
    """Renames an instance group."""

    id: Id[InstanceGroup] = param("the ID of the instance group")
    name: str | None = param("a new name, unique in the account", default=None)

    def run(self, call: Call) -> View:
        return instance_group.update(call.tx, call.caller, self.id, name=self.name)


@command("deleteInstanceGroup", roles=EVERYONE, returns=SuccessResponse, emits=types.INSTANCE_GROUP_DELETE)
class DeleteInstanceGroup(Params):
    """Deletes an instance group; its virtual machines stay."""

    id: Id[InstanceGroup] = param("the ID of the instance group")

    def run(self, call: Call) -> Success:
        instance_group.delete(call.tx, call.caller, self.id)
        return SUCCESS


@command("listInstanceGroups", roles=EVERYONE, returns=InstanceGroupResponse)
class ListInstanceGroups(ListParams):
    """Lists instance groups."""

    id: Id[InstanceGroup] | None = param("the ID of the instance group", default=None)
    name: str | None = param("the name of the instance group", default=None)
    account: str | None = param("list those of an account; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("list those of a domain", default=None)
    is_recursive: bool = param("true to include the domains below domainid", default=False)
    list_all: bool = param("true to list everything the caller may see", default=False)

    def run(self, call: Call) -> Page:
        return Page(
            *instance_group.list_page(
                call.tx,
                call.caller,
                group_id=self.id,
                name=self.name,
                account_name=self.account,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
