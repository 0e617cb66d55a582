"""Commands on domains."""

from pileus.server.api.command import (
    DOMAIN_ADMINS,
    ROOT_ONLY,
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
from pileus.server.domain.ids import Domain, Id
from pileus.server.events.types import DOMAIN_CREATE, DOMAIN_DELETE, DOMAIN_UPDATE
from pileus.server.services import domain


class DomainResponse(Response, name="domain", kind=Domain, load=domain.view):
    """A domain."""

    id = out("the ID of the domain")
    name = out("the name of the domain")
    level = out("the level of the domain, 0 for ROOT", "integer")
    parent_domain_id = out("the ID of the domain above")
    parent_domain_name = out("the name of the domain above")
    has_child = out("whether there are domains below", "boolean")
    network_domain = out("the network domain")
    path = out("the path of the domain")
    state = out("the state of the domain")
    created = out("when the domain was created", "date")


@command("createDomain", roles=ROOT_ONLY, returns=DomainResponse, emits=DOMAIN_CREATE)
class CreateDomain(Params):
    """Creates a domain."""

    name: str = param("the name of the domain")
    parent_domain_id: Id[Domain] | None = param("the domain above it; ROOT unless given", default=None)
    network_domain: str | None = param("network domain for the networks in the domain", default=None)

    def run(self, call: Call) -> View:
        return domain.create(
            call.tx,
            call.caller,
            name=self.name,
            parent_id=self.parent_domain_id,
            network_domain=self.network_domain,
        )


@command("updateDomain", roles=ROOT_ONLY, returns=DomainResponse, emits=DOMAIN_UPDATE)
class UpdateDomain(Params):
    """Updates a domain with a new name."""

    id: Id[Domain] = param("the ID of the domain")
    name: str | None = param("the new name of the domain", default=None)
    network_domain: str | None = param("network domain for the networks in the domain", default=None)

    def run(self, call: Call) -> View:
        return domain.update(call.tx, call.caller, self.id, name=self.name, network_domain=self.network_domain)


@command("deleteDomain", roles=ROOT_ONLY, returns=SuccessResponse, job=True, emits=DOMAIN_DELETE)
class DeleteDomain(Params):
    """Deletes a domain."""

    id: Id[Domain] = param("the ID of the domain")
    cleanup: bool = param("true to delete everything in it too: domains, accounts and what they own", default=False)

    def run(self, call: Call) -> Started:
        return Started(domain.delete(call.tx, call.caller, self.id, cleanup=self.cleanup))


@command("listDomains", roles=DOMAIN_ADMINS, returns=DomainResponse)
class ListDomains(ListParams):
    """Lists the domains you administer."""

    id: Id[Domain] | None = param("the ID of the domain", default=None)
    level: int | None = param("list domains of this level", default=None)
    name: str | None = param("list domains of this name", default=None)
    list_all: bool | None = param("accepted; domains are always all listed", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *domain.list_page(
                call.tx,
                call.caller,
                domain_id=self.id,
                level=self.level,
                name=self.name,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )


@command("listDomainChildren", roles=DOMAIN_ADMINS, returns=DomainResponse)
class ListDomainChildren(ListParams):
    """Lists the domains below a domain."""

    id: Id[Domain] | None = param("the ID of the domain; your own unless given", default=None)
    is_recursive: bool = param("true for all levels below, not only the next", default=False)
    name: str | None = param("list domains of this name", default=None)
    list_all: bool | None = param("accepted; domains are always all listed", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *domain.children(
                call.tx,
                call.caller,
                domain_id=self.id,
                is_recursive=self.is_recursive,
                name=self.name,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )
