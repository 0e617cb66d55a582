"""Commands on operating systems."""

from pileus.server.api.command import EVERYONE, Call, ListParams, Page, Response, command, out, param
from pileus.server.domain.ids import Id, OsCategory, OsType
from pileus.server.services import os_type


class OsTypeResponse(Response, name="ostype"):
    """An operating system that a template may hold."""

    id = out("the ID of the OS type")
    description = out("the name of the OS type")
    os_category_id = out("the ID of the OS category")
    os_category_name = out("the name of the OS category")


class OsCategoryResponse(Response, name="oscategory"):
    """A category of operating systems."""

    id = out("the ID of the OS category")
    name = out("the name of the OS category")


@command("listOsTypes", roles=EVERYONE, returns=OsTypeResponse)
class ListOsTypes(ListParams):
    """Lists the operating systems a template may hold."""

    id: Id[OsType] | None = param("the ID of the OS type", default=None)
    os_category_id: Id[OsCategory] | None = param("the ID of the OS category", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *os_type.list_types(
                call.tx,
                os_type_id=self.id,
                category_id=self.os_category_id,
                keyword=self.keyword,
                page=self.page,
                page_size=self.page_size,
            )
        )


@command("listOsCategories", roles=EVERYONE, returns=OsCategoryResponse)
class ListOsCategories(ListParams):
    """Lists the categories of operating systems."""

    id: Id[OsCategory] | None = param("the ID of the OS category", default=None)

    def run(self, call: Call) -> Page:
        return Page(
            *os_type.list_categories(
                call.tx, category_id=self.id, keyword=self.keyword, page=self.page, page_size=self.page_size
            )
        )
