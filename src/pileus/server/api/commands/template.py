"""Commands on templates."""

from pileus.server.api.command import (
    EVERYONE,
    SUCCESS,
    Call,
    ListParams,
    MapParameter,
    Page,
    Params,
    Response,
    Started,
    Success,
    SuccessResponse,
    View,
    command,
    out,
    param,
)
from pileus.server.domain.ids import Domain, Id, OsType, Template, Zone
from pileus.server.events import types
from pileus.server.services import template, template_list
from pileus.server.services.template import Registration


class TemplateResponse(Response, name="template", kind=Template, load=template_list.view):
    """A template in one zone."""

    id = out("the ID of the template")
    name = out("the name of the template")
    display_text = out("the text shown for the template")
    is_public = out("true if everybody may use the template", "boolean")
    created = out("when the template was registered", "date")
    removed = out("when the template was deleted", "date")
    is_ready = out("true if machines can be made from it in this zone", "boolean")
    password_enabled = out("true if passwords can be reset in its machines", "boolean")
    format = out("the format of the image")
    bootable = out("true if machines can boot from it", "boolean")
    is_featured = out("true if the template is shown to everybody first", "boolean")
    cross_zones = out("true if the template goes to every zone", "boolean", wire="crossZones")
    os_type_id = out("the ID of its OS type")
    os_type_name = out("the name of its OS type")
    account_id = out("the ID of the account it belongs to")
    account = out("the name of the account it belongs to")
    zone_id = out("the ID of the zone")
    zone_name = out("the name of the zone")
    status = out("how its download stands, for its owner and administrators")
    size = out("the size of its disk in bytes", "long")
    physical_size = out("the size of its file in bytes", "long")
    template_type = out("the type of the template")
    hypervisor = out("the hypervisor it is for")
    domain = out("the name of the domain it belongs to")
    domain_id = out("the ID of the domain it belongs to")
    is_extractable = out("true if the template may be downloaded", "boolean")
    checksum = out("the checksum given for its image")
    source_template_id = out("the ID of the template it was made from")
    host_id = out("the ID of the secondary storage that holds it, for root administrators")
    host_name = out("the name of the secondary storage that holds it, for root administrators")
    template_tag = out("its tag, for root administrators")
    details = out("key and value pairs given for it", "map")
    bits = out("32 or 64", "integer")
    requires_hvm = out("true if it needs full virtualization", "boolean")
    url = out("where it was registered from, for root administrators")
    job_id = out("the ID of the job that changes it now", "string")
    job_status = out("the status of that job", "integer")


class TemplatePermissionsResponse(Response, name="templatepermission"):
    """Who may use a template."""

    id = out("the ID of the template")
    is_public = out("true if everybody may use the template", "boolean")
    domain_id = out("the ID of the domain the accounts belong to")
    account = out("the names of accounts that may use the template", "list")


@command("registerTemplate", roles=EVERYONE, returns=TemplateResponse, emits=types.TEMPLATE_CREATE)
class RegisterTemplate(Params):
    """Registers a template: its image is fetched from a URL into the secondary storage of the zone."""

    name: str = param("the name of the template")
    display_text: str = param("the text shown for the template", length=4096)
    url: str = param("where the image is: http or https, plain or ending in .gz or .bz2", length=2048)
    format: str = param("the format of the image: QCOW2 or RAW")
    hypervisor: str = param("the hypervisor the template is for")
    zone_id: Id[Zone] = param("the ID of the zone, -1 for all zones", authorize=False)
    os_type_id: Id[OsType] = param("the ID of its OS type")
    account: str | None = param("the account it will belong to; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("the domain of the account", default=None)
    bits: int = param("32 or 64", default=64)
    checksum: str | None = param("MD5 or SHA-256 digest of what the URL serves", default=None)
    is_public: bool = param("true if everybody may use the template", default=False)
    is_featured: bool = param("true if the template is to be shown first; root administrators only", default=False)
    is_extractable: bool = param("true if the template may be downloaded", default=False)
    password_enabled: bool = param("true if passwords can be reset in its machines", default=False)
    requires_hvm: bool = param("true if it needs full virtualization", default=True)
    template_tag: str | None = param("a tag; root administrators only", default=None)
    details: MapParameter = param("key and value pairs kept with it", default=())

    def run(self, call: Call) -> Page:
        views = template.register(
            call.tx,
            call.caller,
            Registration(
                name=self.name,
                display_text=self.display_text,
                url=self.url,
                format=self.format,
                hypervisor=self.hypervisor,
                zone_id=self.zone_id,
                os_type_id=self.os_type_id,
                account=self.account,
                domain_id=self.domain_id,
                bits=self.bits,
                checksum=self.checksum,
                is_public=self.is_public,
                is_featured=self.is_featured,
                is_extractable=self.is_extractable,
                password_enabled=self.password_enabled,
                requires_hvm=self.requires_hvm,
                tag=self.template_tag,
                details=self.details,
            ),
        )
        return Page(list(views), len(views))


@command("listTemplates", roles=EVERYONE, returns=TemplateResponse)
class ListTemplates(ListParams):
    """Lists templates, a line for each zone a template is in."""

    template_filter: str = param(
        "featured, self, selfexecutable, shared, sharedexecutable, executable, community or all (root administrators)"
    )
    id: Id[Template] | None = param("the ID of the template", default=None)
    ids: list[Id[Template]] | None = param("IDs of templates", default=None)
    name: str | None = param("the name of the template", default=None)
    zone_id: Id[Zone] | None = param("the ID of the zone", default=None)
    hypervisor: str | None = param("the hypervisor it is for", default=None)
    account: str | None = param("templates of this account; needs domainid", default=None)
    domain_id: Id[Domain] | None = param("templates of this domain", default=None)
    list_all: bool | None = param("templates of all accounts the caller may see", default=None)
    is_recursive: bool | None = param("with domainid: of the domains below it, too", default=None)

    def run(self, call: Call) -> Page:
        ids = [*(self.ids or ()), *((self.id,) if self.id is not None else ())]
        return Page(
            *template_list.list_page(
                call.tx,
                call.caller,
                template_filter=self.template_filter,
                template_ids=[int(each) for each in ids] if ids else None,
                name=self.name,
                zone_id=self.zone_id,
                hypervisor=self.hypervisor,
                account_name=self.account,
                domain_id=self.domain_id,
                list_all=self.list_all,
                is_recursive=self.is_recursive,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )


@command("updateTemplate", roles=EVERYONE, returns=TemplateResponse, emits=types.TEMPLATE_UPDATE)
class UpdateTemplate(Params):
    """Changes how a template is described."""

    id: Id[Template] = param("the ID of the template")
    name: str | None = param("its name", default=None)
    display_text: str | None = param("the text shown for it", default=None, length=4096)
    os_type_id: Id[OsType] | None = param("the ID of its OS type", default=None)
    format: str | None = param("the format of its image, which cannot change", default=None)
    bootable: bool | None = param("true if machines can boot from it", default=None)
    password_enabled: bool | None = param("true if passwords can be reset in its machines", default=None)
    requires_hvm: bool | None = param("true if it needs full virtualization", default=None)

    def run(self, call: Call) -> View:
        return template.update(
            call.tx,
            call.caller,
            self.id,
            name=self.name,
            display_text=self.display_text,
            os_type_id=self.os_type_id,
            image_format=self.format,
            bootable=self.bootable,
            password_enabled=self.password_enabled,
            requires_hvm=self.requires_hvm,
        )


@command("deleteTemplate", roles=EVERYONE, returns=SuccessResponse, job=True, emits=types.TEMPLATE_DELETE)
class DeleteTemplate(Params):
    """Deletes a template, in one zone or everywhere. Machines made from it run on."""

    id: Id[Template] = param("the ID of the template")
    zone_id: Id[Zone] | None = param("the ID of the zone to delete it in", default=None)

    def run(self, call: Call) -> Started:
        return Started(template.delete(call.tx, call.caller, self.id, self.zone_id))


@command("updateTemplatePermissions", roles=EVERYONE, returns=SuccessResponse, emits=types.TEMPLATE_UPDATE)
class UpdateTemplatePermissions(Params):
    """Says who may use a template."""

    id: Id[Template] = param("the ID of the template")
    accounts: list[str] | None = param("names of accounts in the template's domain", default=None)
    op: str | None = param("add, remove or reset", default=None)
    is_public: bool | None = param("true if everybody may use it", default=None)
    is_featured: bool | None = param("true if it is to be shown first; root administrators only", default=None)
    is_extractable: bool | None = param("true if it may be downloaded; root administrators only", default=None)

    def run(self, call: Call) -> Success:
        template.change_permissions(
            call.tx,
            call.caller,
            self.id,
            accounts=self.accounts,
            operation=self.op,
            is_public=self.is_public,
            is_featured=self.is_featured,
            is_extractable=self.is_extractable,
        )
        return SUCCESS


@command("listTemplatePermissions", roles=EVERYONE, returns=TemplatePermissionsResponse)
class ListTemplatePermissions(Params):
    """Lists the accounts that may use a template."""

    id: Id[Template] = param("the ID of the template")
    account: str | None = param("tell only whether this account may", default=None)
    domain_id: Id[Domain] | None = param("tell only accounts of this domain", default=None)

    def run(self, call: Call) -> View:
        return template.permissions(call.tx, call.caller, self.id, account_name=self.account, domain_id=self.domain_id)
