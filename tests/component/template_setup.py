"""What tests of templates share: commands in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event as sa_event
from sqlalchemy import select

from pileus.server.db.queries import count
from pileus.server.db.tables.event import event
from pileus.server.db.tables.template import template, template_copy
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Id, OsType, Template
from pileus.server.services import template as service
from pileus.server.services.template import Registration
from pileus.server.services.template_list import list_page
from pileus.testing import World

GIB = 1 << 30


def registration(zone_id: int, **wishes: Any) -> Registration:
    """A template for simulated hosts."""
    values: dict[str, Any] = {
        "name": "web",
        "display_text": "Web server",
        "url": "http://images.example/web.qcow2",
        "format": "QCOW2",
        "hypervisor": "Simulator",
        "zone_id": zone_id,
        "os_type_id": Id[OsType](1),
    }
    return Registration(**(values | wishes))


def registered(world: World, caller: Caller, zone_id: int, **wishes: Any) -> Id[Template]:
    """Register it; its download has not begun."""
    with world.db.write() as tx:
        view = service.register(tx, caller, registration(zone_id, **wishes))[0]
        return Id(int(tx.scalar(select(template.c.id).where(template.c.uuid == view["id"]))))


def listed(world: World, caller: Caller, wanted: str = "self", **filters: Any) -> list[dict[str, Any]]:
    """listTemplates."""
    given: dict[str, Any] = {
        "template_ids": None,
        "name": None,
        "zone_id": None,
        "hypervisor": None,
        "account_name": None,
        "domain_id": None,
        "list_all": None,
        "is_recursive": None,
        "keyword": None,
        "page": None,
        "page_size": None,
    }
    with world.db.read() as tx:
        views, found = list_page(tx, caller, template_filter=wanted, **(given | filters))
    assert found == len(views)
    return views


def permit(tx: Tx, caller: Caller, template_id: Id[Template], **wishes: Any) -> None:
    """updateTemplatePermissions."""
    given = dict.fromkeys(("accounts", "operation", "is_public", "is_featured", "is_extractable"))
    service.change_permissions(tx, caller, template_id, **(given | wishes))


@contextmanager
def counting(tx: Tx) -> Iterator[list[str]]:
    """The statements run on the connection of a unit of work."""
    statements: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        statements.append(statement)

    sa_event.listen(tx.connection, "before_cursor_execute", note)
    yield statements
    sa_event.remove(tx.connection, "before_cursor_execute", note)


def names(views: list[dict[str, Any]]) -> list[str]:
    """Names but those that the world itself gave."""
    return sorted(view["name"] for view in views if not view["name"].startswith("template-"))


def copy_state(world: World, template_id: int) -> list[str]:
    with world.db.read() as tx:
        return list(
            tx.execute(select(template_copy.c.state).where(template_copy.c.template_id == template_id)).scalars()
        )


def counted(world: World, caller: Caller) -> int:
    with world.db.read() as tx:
        return count.of(tx, count.ACCOUNT, caller.account_id)[Resource.TEMPLATE].used


def events_of(world: World, template_id: int) -> list[str]:
    with world.db.read() as tx:
        found = select(event.c.type).where(event.c.resource_kind == "Template", event.c.resource_id == template_id)
        return list(tx.execute(found.order_by(event.c.id)).scalars())
