"""Commands on limits and counts."""

from pileus.server.api.command import (
    DOMAIN_ADMINS,
    EVERYONE,
    Call,
    ListParams,
    Page,
    Params,
    Response,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import Domain, Id
from pileus.server.events.types import RESOURCE_LIMIT_UPDATE
from pileus.server.services import limit

_TYPES = "0 virtual machines, 1 public IP addresses, 2 volumes, 3 snapshots, 4 templates"


class ResourceLimitResponse(Response, name="resourcelimit"):
    """A limit."""

    account = out("the account of the limit; absent for a limit of a domain")
    domain_id = out("the domain ID of the limit")
    domain = out("the domain name of the limit")
    resource_type = out(_TYPES)
    max = out("the most there may be, -1 for any number", "long")


class ResourceCountResponse(Response, name="resourcecount"):
    """A count."""

    account = out("the account of the count; absent for a count of a domain")
    domain_id = out("the domain ID of the count")
    domain = out("the domain name of the count")
    resource_type = out(_TYPES)
    resource_count = out("how many there are", "long")


@command("updateResourceLimit", roles=DOMAIN_ADMINS, returns=ResourceLimitResponse, emits=RESOURCE_LIMIT_UPDATE)
class UpdateResourceLimit(Params):
    """Updates a limit of an account or of a domain."""

    account: str | None = param("the account; without it the limit is the domain's", default=None)
    domain_id: Id[Domain] | None = param("the domain, or the domain of the account", default=None)
    max: int | None = param("the most there may be; -1, or nothing, for any number", default=None)
    resource_type: int = param(_TYPES)

    def run(self, call: Call) -> View:
        return limit.update(
            call.tx,
            call.caller,
            account=self.account,
            domain_id=self.domain_id,
            resource_type=self.resource_type,
            maximum=self.max,
        )


@command("listResourceLimits", roles=EVERYONE, returns=ResourceLimitResponse)
class ListResourceLimits(ListParams):
    """Lists limits, those of your own account unless another account or a domain is given."""

    account: str | None = param("list limits of this account", default=None)
    domain_id: Id[Domain] | None = param("list limits of this domain, or the domain of the account", default=None)
    id: str | None = param("accepted for older clients, without effect", default=None)
    resource_type: int | None = param(_TYPES, default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *limit.list_page(
                call.tx,
                call.caller,
                account=self.account,
                domain_id=self.domain_id,
                resource_type=self.resource_type,
                page=self.page,
                page_size=self.page_size,
            )
        )


@command("updateResourceCount", roles=DOMAIN_ADMINS, returns=ResourceCountResponse)
class UpdateResourceCount(Params):
    """Counts again what an account or a domain has."""

    account: str | None = param("the account; without it all of the domain is counted", default=None)
    domain_id: Id[Domain] = param("the domain, or the domain of the account")
    resource_type: int | None = param(_TYPES, default=None)

    def run(self, call: Call) -> Page:
        views = limit.recount(
            call.tx,
            call.caller,
            account=self.account,
            domain_id=self.domain_id,
            resource_type=self.resource_type,
        )
        return Page(list(views), len(views))
