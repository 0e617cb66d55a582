"""Templates: registering and listing."""

from typing import Any

import pytest
from api_client import Api, Person, admin, api
from sqlalchemy import select
from template_setup import GIB, copy_state, counted, counting, events_of, listed, names, permit, registered

from pileus.server.config import change, keys
from pileus.server.db.tables.event import event
from pileus.server.domain.account import AccountType
from pileus.server.domain.caller import Caller, root_caller
from pileus.server.domain.errors import LimitExceeded, ParameterError, PermissionDenied
from pileus.server.domain.storage import CopyState
from pileus.server.events import types
from pileus.server.hosts import operations
from pileus.server.services.template_list import list_page
from pileus.testing import World
from pileus.testing.builders import root
from pileus.wire.messages import Answer
from pileus.wire.operations import DownloadTemplate, Reason, Refusal

# ---- registering

__all__ = ["admin", "api"]


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
    with world.db.read() as tx:
        failed = select(event.c.level).where(event.c.type == types.TEMPLATE_DOWNLOAD_FAILED).order_by(event.c.id)
        assert list(tx.execute(failed).scalars()) == ["WARN"] * 7 + ["ERROR"]


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


# ---- over the wire


def test_the_answer_of_a_registration_is_a_list_and_everything_round_trips(
    world: World, api: Api, admin: Person
) -> None:
    cloud = world.cloud(hosts=1)
    asked = {
        "name": "<b>web</b>",
        "displaytext": "x",
        "url": "http://images.example/a.qcow2.gz",
        "format": "QCOW2",
        "hypervisor": "simulator",
        "ostypeid": 1,
    }
    body = api.ok(admin, "registerTemplate", **asked, zoneid=-1, **{"details[0].key": "a", "details[0].value": "b"})
    (made,) = body["template"]
    assert (body["count"], made["name"], made["crossZones"], made["details"]) == (1, "<b>web</b>", True, {"a": "b"})
    world.settle()
    (seen,) = api.ok(admin, "listTemplates", templatefilter="self", id=made["id"])["template"]
    assert (seen["isready"], seen["status"]) == (True, "Download Complete")
    code, text = api.error(admin, "registerTemplate", **asked)
    assert code == 431
    assert "zoneid" in text
    code, _ = api.error(admin, "registerTemplate", **(asked | {"format": "VHD"}), zoneid=cloud.zone)
    assert code == 431
    started = api.ok(admin, "deleteTemplate", id=made["id"])
    world.result(started["jobid"])
    assert api.ok(admin, "listTemplates", templatefilter="self", name="<b>web</b>") == {}
    assert api.ok(admin, "listVolumes", listall=True) == {}
