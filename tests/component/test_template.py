"""Templates: registering, listing, changing, sharing, deleting, cleaning up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event as sa_event
from sqlalchemy import select
from vm_setup import deployed, submitted

from pileus.server.config import change, keys
from pileus.server.db.queries import count, template_on_pool
from pileus.server.db.tables.event import event
from pileus.server.db.tables.template import template, template_copy
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import AccountType, Resource
from pileus.server.domain.caller import Caller, root_caller
from pileus.server.domain.errors import LimitExceeded, ParameterError, PermissionDenied, ResourceInUse
from pileus.server.domain.ids import Id, OsType, Template
from pileus.server.domain.storage import CopyState
from pileus.server.events import types
from pileus.server.hosts import operations
from pileus.server.services import template as service
from pileus.server.services import vm as vm_service
from pileus.server.services.template import Registration
from pileus.server.services.template_list import list_page
from pileus.testing import World
from pileus.testing.builders import root
from pileus.wire.messages import Answer
from pileus.wire.operations import DownloadTemplate, Reason, Refusal

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


# ---- registering


def test_a_registered_template_is_downloaded_and_says_how_far_it_is(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = registered(world, alice, cloud.zone, details=({"key": "a", "value": "b"}, {"c": "d"}))
    before = listed(world, alice)[0]
    assert (before["is_ready"], before["status"], before["size"]) == (False, "0% Downloaded", None)
    world.settle()
    after = listed(world, alice)[0]
    assert (after["is_ready"], after["status"]) == (True, "Download Complete")
    assert after["size"] == world.stores[cloud.storage].default_bytes
    assert after["details"] == {"a": "b", "c": "d"}
    assert after["zone_id"] == before["zone_id"]
    assert events_of(world, template_id) == [
        types.TEMPLATE_CREATE,
        types.TEMPLATE_DOWNLOAD_START,
        types.TEMPLATE_DOWNLOAD_SUCCESS,
    ]
    assert counted(world, alice) == 1
    world.assert_nothing_left()


def test_progress_of_the_storage_is_shown_in_the_status(world: World) -> None:
    from_storage: list[str] = []
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    registered(world, alice, cloud.zone)

    def look(waiting: Any, answer: Answer) -> list[Answer]:
        with world.db.write() as tx:
            operations.progress(tx, waiting.host_id, waiting.operation_id, 45, "")
        from_storage.append(listed(world, alice)[0]["status"])
        return [answer]

    world.intercept = look
    world.settle()
    assert from_storage == ["45% Downloaded"]


def test_what_the_storage_is_asked_follows_the_settings(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    with world.db.write() as tx:
        change(tx, keys.max_template_iso_size, "3", user_id=1)
        change(tx, keys.secstorage_allowed_internal_sites, "10.0.0.0/8, 192.0.2.0/24", user_id=1)
    checksum = "D41D8CD98F00B204E9800998ECF8427E"
    registered(world, alice, cloud.zone, checksum=checksum, format="raw")
    asked: list[Any] = []
    world.intercept = lambda waiting, answer: [asked.append(waiting.operation), answer][1:]  # type: ignore[func-returns-value, list-item]
    world.settle()
    (order,) = asked
    assert isinstance(order, DownloadTemplate)
    assert order.max_bytes == 3 * GIB
    assert order.allowed_cidrs == ("10.0.0.0/8", "192.0.2.0/24")
    assert (order.checksum, str(order.format)) == (checksum.lower(), "RAW")


@pytest.mark.parametrize(
    ("wishes", "parameter"),
    [
        ({"format": "VHD"}, "format"),
        ({"format": "ISO"}, "format"),
        ({"format": "floppy"}, "format"),
        ({"hypervisor": "XenServer"}, "hypervisor"),
        ({"hypervisor": "Hyperspace"}, "hypervisor"),
        ({"url": "ftp://images.example/a"}, "url"),
        ({"url": "file:///etc/passwd"}, "url"),
        ({"url": "http://"}, "url"),
        ({"url": "http://me:secret@images.example/a"}, "url"),
        ({"url": "http://images.example/a b"}, "url"),
        ({"url": "http://images.example:0/a"}, "url"),
        ({"url": "http://[::1/a"}, "url"),
        ({"url": "http://images.example/" + "a" * 2048}, "url"),
        ({"bits": 16}, "bits"),
        ({"checksum": "abc"}, "checksum"),
        ({"name": "  "}, "name"),
        ({"details": ({"key": "k", "value": "v" * 5000},)}, "details"),
    ],
)
def test_what_cannot_be_a_template_is_refused_by_parameter_and_leaves_nothing(
    world: World, wishes: dict[str, Any], parameter: str
) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    with pytest.raises(ParameterError) as caught:
        registered(world, alice, cloud.zone, **wishes)
    assert caught.value.parameter == parameter
    assert listed(world, alice) == []
    assert counted(world, alice) == 0


def test_an_account_cannot_pass_its_limit(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice", maximum=1)
    registered(world, alice, cloud.zone)
    with pytest.raises(LimitExceeded):
        registered(world, alice, cloud.zone, name="second")
    assert names(listed(world, alice)) == ["web"]


@pytest.mark.parametrize("wishes", [{"is_featured": True}, {"tag": "gold"}])
def test_only_administrators_feature_and_tag(world: World, wishes: dict[str, Any]) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    with pytest.raises(PermissionDenied):
        registered(world, alice, cloud.zone, **wishes)
    registered(world, root(), cloud.zone, **wishes)


def test_users_publish_only_while_the_setting_says_so(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = registered(world, alice, cloud.zone, is_public=True)
    with world.db.write() as tx:
        change(tx, keys.allow_public_user_templates, "false", user_id=1)
    with pytest.raises(PermissionDenied):
        registered(world, alice, cloud.zone, name="second", is_public=True)
    with pytest.raises(PermissionDenied), world.db.write() as tx:
        permit(tx, alice, template_id, is_public=True)
    registered(world, root(), cloud.zone, name="third", is_public=True)


def test_an_administrator_registers_for_another_account_and_a_user_does_not(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    registered(world, root(), cloud.zone, account="alice", domain_id=alice.domain_id)
    assert listed(world, alice)[0]["account"] == "alice"
    assert counted(world, alice) == 1
    with pytest.raises(PermissionDenied):
        registered(world, alice, cloud.zone, account="admin", domain_id=alice.domain_id)


def test_every_zone_gets_a_copy_and_so_does_one_that_comes_later(world: World) -> None:
    first, second = world.cloud(hosts=1), world.cloud(hosts=1)
    template_id = registered(world, root(), -1)
    world.settle()
    assert copy_state(world, template_id) == [CopyState.READY, CopyState.READY]
    assert {view["zone_id"] for view in listed(world, root(), "all", name="web")} == {
        view["zone_id"] for cloud in (first, second) for view in listed(world, root(), "all", zone_id=cloud.zone)
    }
    world.cloud(hosts=1)
    world.reconcile("template-download")
    world.settle()
    assert copy_state(world, template_id) == [CopyState.READY] * 3


def test_a_users_template_for_every_zone_does_not_go_to_zones_of_others(world: World) -> None:
    public, other = world.cloud(hosts=1), world.domain("other")
    private = world.zone(domain_id=other)
    alice = world.account("alice")
    registered(world, alice, -1)
    assert len(listed(world, alice)) == 1
    assert listed(world, alice, zone_id=public.zone)
    with pytest.raises(PermissionDenied):
        registered(world, alice, private, name="second")


def test_a_template_waits_for_secondary_storage_that_comes_later(world: World) -> None:
    zone_id, alice = world.zone(), world.account("alice")
    template_id = registered(world, alice, zone_id)
    assert listed(world, alice)[0]["status"] == "waiting for secondary storage"
    world.reconcile("template-download")
    world.settle()
    assert copy_state(world, template_id) == [CopyState.NOT_THERE]
    world.secondary_storage(zone_id)
    world.reconcile("template-download")
    world.settle()
    assert copy_state(world, template_id) == [CopyState.READY]


# ---- refusals of the storage


def refuse(world: World, *reasons: Reason) -> None:
    """Have the next downloads refused, one by each reason."""
    left = list(reasons)

    def answer(waiting: Any) -> Answer | None:
        if left and isinstance(waiting.operation, DownloadTemplate):
            reason = left.pop(0)
            return Answer(waiting.operation_id, "", refusal=Refusal(reason, f"it is {reason}"))
        return None

    world.instead = answer


def test_a_bad_image_fails_for_good_and_says_why(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = registered(world, alice, cloud.zone)
    refuse(world, Reason.REJECTED)
    world.settle()
    view = listed(world, alice)[0]
    assert (view["is_ready"], view["status"]) == (False, "it is rejected")
    assert types.TEMPLATE_DOWNLOAD_FAILED in events_of(world, template_id)
    world.clock.advance(24 * 3600)
    world.reconcile("template-download")
    world.settle()
    assert copy_state(world, template_id) == [CopyState.FAILED]
    world.assert_nothing_left()


@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.NO_ROOM, Reason.FAILED])
def test_what_may_pass_is_tried_again_after_a_pause(world: World, reason: Reason) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = registered(world, alice, cloud.zone)
    refuse(world, reason)
    world.settle()
    world.reconcile("template-download")
    world.settle()
    assert copy_state(world, template_id) == [CopyState.FAILED]
    world.clock.advance(300)
    world.reconcile("template-download")
    world.settle()
    assert copy_state(world, template_id) == [CopyState.READY]


def test_trying_again_comes_to_an_end(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = registered(world, alice, cloud.zone)
    refuse(world, *[Reason.UNREACHABLE] * 100)
    for _ in range(20):
        world.settle()
        world.clock.advance(7 * 3600)
        world.reconcile("template-download")
    started = [each for each in events_of(world, template_id) if each == types.TEMPLATE_DOWNLOAD_START]
    assert len(started) == 8


# ---- listing


@pytest.fixture
def gallery(world: World) -> dict[str, Caller]:
    """Templates of two accounts, of each kind, all ready but one."""
    cloud = world.cloud(hosts=1)
    alice, bob = world.account("alice"), world.account("bob")
    world.template(cloud.zone, "featured", owner=root())
    world.template(cloud.zone, "community", owner=bob, is_featured=0)
    world.template(cloud.zone, "alices", owner=alice, is_public=0, is_featured=0)
    world.template(cloud.zone, "bobs", owner=bob, is_public=0, is_featured=0)
    shared = world.template(cloud.zone, "shared", owner=bob, is_public=0, is_featured=0)
    registered(world, alice, cloud.zone, name="coming")
    with world.db.write() as tx:
        permit(tx, bob, shared, accounts=["alice"], operation="add")
    return {"alice": alice, "bob": bob, "root": root()}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("featured", ["featured"]),
        ("community", ["community"]),
        ("self", ["alices", "coming"]),
        ("selfexecutable", ["alices"]),
        ("self-executable", ["alices"]),
        ("sharedexecutable", ["shared"]),
        ("executable", ["alices", "community", "featured", "shared"]),
    ],
)
def test_a_user_sees_what_the_filter_says_and_nothing_of_others(
    world: World, gallery: dict[str, Caller], wanted: str, expected: list[str]
) -> None:
    assert names(listed(world, gallery["alice"], wanted)) == expected


def test_all_templates_are_for_root_administrators(world: World, gallery: dict[str, Caller]) -> None:
    everything = ["alices", "bobs", "coming", "community", "featured", "shared"]
    assert names(listed(world, gallery["root"], "all")) == everything
    assert names(listed(world, gallery["root"], "all", account_name="bob", domain_id=1)) == [
        "bobs",
        "community",
        "shared",
    ]
    with pytest.raises(PermissionDenied):
        listed(world, gallery["alice"], "all")
    with pytest.raises(PermissionDenied):
        listed(world, world.account(type=AccountType.DOMAIN_ADMIN), "all")


def test_filters_narrow_and_an_unknown_one_is_named(world: World, gallery: dict[str, Caller]) -> None:
    assert names(listed(world, gallery["root"], "all", name="bobs")) == ["bobs"]
    assert names(listed(world, gallery["root"], "all", keyword="ALICE")) == ["alices"]
    assert listed(world, gallery["root"], "all", keyword="%") == []
    assert listed(world, gallery["root"], "all", hypervisor="KVM") == []
    assert listed(world, gallery["root"], "all", zone_id=99) == []
    with pytest.raises(ParameterError) as caught:
        listed(world, gallery["alice"], "mine")
    assert caught.value.parameter == "templatefilter"


def test_only_the_owner_and_administrators_see_how_a_template_came(world: World, gallery: dict[str, Caller]) -> None:
    (seen,) = listed(world, gallery["alice"], "community")
    assert (seen["status"], seen["host_id"], seen["url"]) == (None, None, None)
    (own,) = listed(world, gallery["bob"], "community")
    assert (own["status"], own["host_id"], own["url"]) == ("Download Complete", None, None)
    (all_of_it,) = listed(world, gallery["root"], "all", name="community")
    assert all_of_it["host_id"]
    assert all_of_it["url"]


def test_a_page_takes_the_same_number_of_queries_however_long_it_is(world: World) -> None:
    cloud = world.cloud(hosts=1)
    asked: list[int] = []
    for wanted in (1, 2, 12):
        for number in range(wanted):
            world.template(cloud.zone, f"t-{wanted}-{number}", owner=world.account())
        with world.db.read() as tx, counting(tx) as statements:
            list_page(
                tx,
                root_caller(),
                template_filter="all",
                template_ids=None,
                name=None,
                zone_id=None,
                hypervisor=None,
                account_name=None,
                domain_id=None,
                list_all=None,
                is_recursive=None,
                keyword=None,
                page=None,
                page_size=None,
            )
        asked.append(len(statements))
    assert asked[1] == asked[2]  # The first one filled the cache of settings.


# ---- changing and sharing


def changed(world: World, caller: Caller, template_id: Id[Template], **wishes: Any) -> dict[str, Any]:
    """updateTemplate."""
    given = dict.fromkeys(
        ("name", "display_text", "os_type_id", "image_format", "bootable", "password_enabled", "requires_hvm")
    )
    with world.db.write() as tx:
        return service.update(tx, caller, template_id, **(given | wishes))


def test_a_description_can_change_and_the_image_cannot(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = world.template(cloud.zone, "old", owner=alice)
    view = changed(
        world, alice, template_id, name="new", display_text="New", password_enabled=True, bootable=False, os_type_id=2
    )
    assert (view["name"], view["display_text"], view["password_enabled"], view["bootable"]) == (
        "new",
        "New",
        True,
        False,
    )
    assert changed(world, alice, template_id, image_format="qcow2")["format"] == "QCOW2"
    with pytest.raises(ParameterError) as caught:
        changed(world, alice, template_id, image_format="RAW")
    assert caught.value.parameter == "format"
    assert types.TEMPLATE_UPDATE in events_of(world, template_id)


def test_seeing_a_template_is_not_owning_it(world: World) -> None:
    cloud, alice, bob = world.cloud(hosts=1), world.account("alice"), world.account("bob")
    template_id = world.template(cloud.zone, owner=bob)
    with pytest.raises(PermissionDenied):
        changed(world, alice, template_id, name="mine")
    with pytest.raises(PermissionDenied), world.db.write() as tx:
        permit(tx, alice, template_id, is_public=False)
    with pytest.raises(PermissionDenied), world.db.write() as tx:
        service.delete(tx, alice, template_id, None)
    with pytest.raises(PermissionDenied), world.db.read() as tx:
        service.permissions(tx, alice, template_id)


def test_sharing_lets_accounts_use_a_private_template_until_it_is_taken_back(world: World) -> None:
    cloud, alice, bob = world.cloud(hosts=1), world.account("alice"), world.account("bob")
    template_id = world.template(cloud.zone, "private", owner=bob, is_public=0, is_featured=0)
    for operation, accounts, seen in (
        ("add", ["alice"], ["private"]),
        ("add", ["alice"], ["private"]),
        ("remove", ["alice"], []),
        ("add", ["alice"], ["private"]),
        ("reset", None, []),
    ):
        with world.db.write() as tx:
            permit(tx, bob, template_id, accounts=accounts, operation=operation)
        assert names(listed(world, alice, "sharedexecutable")) == seen
        with world.db.read() as tx:
            assert service.permissions(tx, bob, template_id)["account"] == (["alice"] if seen else [])


@pytest.mark.parametrize(
    ("wishes", "parameter"),
    [
        ({"operation": "give", "accounts": ["alice"]}, "op"),
        ({"accounts": ["alice"]}, "op"),
        ({"operation": "add"}, "accounts"),
        ({"operation": "add", "accounts": ["alice", "nobody"]}, "accounts"),
    ],
)
def test_sharing_that_makes_no_sense_is_refused(world: World, wishes: dict[str, Any], parameter: str) -> None:
    cloud = world.cloud(hosts=1)
    world.account("alice")
    with pytest.raises(ParameterError) as caught, world.db.write() as tx:
        permit(tx, root(), cloud.template, **wishes)
    assert caught.value.parameter == parameter


def test_featuring_is_for_root_administrators(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = world.template(cloud.zone, "mine", owner=alice, is_featured=0)
    with pytest.raises(PermissionDenied), world.db.write() as tx:
        permit(tx, alice, template_id, is_featured=True)
    with world.db.write() as tx:
        permit(tx, root(), template_id, is_featured=True)
    assert "mine" in names(listed(world, alice, "featured"))


# ---- deleting


def deletion(world: World, caller: Caller, template_id: Id[Template], zone_id: int | None = None) -> str:
    with world.db.write() as tx:
        return service.delete(tx, caller, template_id, zone_id)


def test_a_deleted_template_is_gone_from_lists_limits_and_storage(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = world.template(cloud.zone, "mine", owner=alice)
    world.result(deletion(world, alice, template_id))
    assert listed(world, alice) == []
    assert counted(world, alice) == 0
    assert len(world.stores[cloud.storage].images) == 1
    assert copy_state(world, template_id) == []
    world.assert_nothing_left()


def test_a_template_deleted_in_one_zone_stays_in_the_others_and_does_not_come_back(world: World) -> None:
    first, second = world.cloud(hosts=1), world.cloud(hosts=1)
    template_id = registered(world, root(), -1)
    world.settle()
    world.result(deletion(world, root(), template_id, first.zone))
    world.reconcile("template-download")
    world.settle()
    (view,) = listed(world, root(), "all", name="web")
    assert listed(world, root(), "all", name="web", zone_id=second.zone) == [view]
    assert counted(world, root()) == 3
    world.result(deletion(world, root(), template_id, second.zone))
    assert listed(world, root(), "all", name="web") == []
    assert counted(world, root()) == 2


def test_a_zone_the_template_is_not_in_is_named(world: World) -> None:
    cloud = world.cloud(hosts=1)
    with pytest.raises(ParameterError) as caught:
        deletion(world, root(), cloud.template, world.zone())
    assert caught.value.parameter == "zoneid"


def test_a_template_that_volumes_are_being_made_from_is_in_use_until_they_are_there(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    job_uuid, vm_id = submitted(world, alice, cloud)
    with pytest.raises(ResourceInUse):
        deletion(world, root(), cloud.template)
    world.result(job_uuid)
    world.result(deletion(world, root(), cloud.template))
    with world.db.write() as tx:
        stop_job, _ = vm_service.stop(tx, alice, vm_id, forced=True)
    world.result(stop_job)
    with world.db.write() as tx:
        start_job, _ = vm_service.start(tx, alice, vm_id, host_id=None)
    world.result(start_job)
    world.assert_nothing_left()


def test_a_template_can_be_deleted_while_it_is_being_downloaded(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    template_id = registered(world, alice, cloud.zone)
    world.refuses_delivery = lambda waiting: True
    for _ in range(20):
        world.turn()
    world.refuses_delivery = lambda waiting: False
    world.result(deletion(world, alice, template_id))
    assert copy_state(world, template_id) == []
    world.assert_nothing_left()


# ---- pools


def on_pools(world: World, template_id: int) -> list[str]:
    with world.db.read() as tx:
        return [str(each.state) for each in template_on_pool.of_template(tx, template_id)]


def pool_templates(world: World) -> int:
    return sum(len(pool.templates) for pool in world.hosts.world.pools.values())


def cleaned(world: World, *, after_seconds: float) -> None:
    world.clock.advance(after_seconds)
    world.reconcile("template-cleanup")
    world.settle()


def test_a_template_leaves_a_pool_once_it_is_unused_for_long_and_comes_back_when_needed(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    vm_id = deployed(world, alice, cloud)
    cleaned(world, after_seconds=2 * 86400)
    assert on_pools(world, cloud.template) == ["Ready"]
    with world.db.write() as tx:
        job_uuid, _ = vm_service.destroy(tx, root(), vm_id, expunge=True)
    world.result(job_uuid)
    with world.db.write() as tx:
        change(tx, keys.storage_template_cleanup_enabled, "false", user_id=1)
    cleaned(world, after_seconds=2 * 86400)
    assert on_pools(world, cloud.template) == ["Ready"]
    with world.db.write() as tx:
        change(tx, keys.storage_template_cleanup_enabled, "true", user_id=1)
    cleaned(world, after_seconds=1)
    assert on_pools(world, cloud.template) == []
    assert pool_templates(world) == 0
    deployed(world, alice, cloud)
    assert on_pools(world, cloud.template) == ["Ready"]
    world.assert_nothing_left()


def test_a_deleted_template_leaves_a_pool_with_its_last_clone(world: World) -> None:
    cloud, alice = world.cloud(hosts=1), world.account("alice")
    vm_id = deployed(world, alice, cloud)
    world.result(deletion(world, root(), cloud.template))
    cleaned(world, after_seconds=3600)
    assert pool_templates(world) == 1
    with world.db.write() as tx:
        job_uuid, _ = vm_service.destroy(tx, root(), vm_id, expunge=True)
    world.result(job_uuid)
    cleaned(world, after_seconds=3600)
    assert pool_templates(world) == 0
    assert on_pools(world, cloud.template) == []
    world.assert_nothing_left()
