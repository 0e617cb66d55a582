"""Templates: changing, sharing, deleting, and leaving pools."""

from typing import Any

import pytest
from template_setup import copy_state, counted, events_of, listed, names, permit, registered
from vm_setup import deployed, submitted

from pileus.server.config import change, keys
from pileus.server.db.queries import template_on_pool
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, PermissionDenied, ResourceInUse
from pileus.server.domain.ids import Id, Template
from pileus.server.events import types
from pileus.server.services import template as service
from pileus.server.services import vm as vm_service
from pileus.testing import World
from pileus.testing.builders import root

# ---- changing and sharing


def changed(world: World, caller: Caller, template_id: Id[Template], **wishes: Any) -> dict[str, Any]:
    """updateTemplate."""
    given = dict.fromkeys(
        ("name", "display_text", "os_type_id", "image_format", "bootable", "password_enabled", "requires_hvm")
    )
    with world.db.write() as tx:
        return service.update(tx, caller, template_id, **(given | wishes))


def allowed(tx: Tx, caller: Caller, template_id: Id[Template], **only: Any) -> list[str]:
    """listTemplatePermissions."""
    told = service.permissions(tx, caller, template_id, **({"account_name": None, "domain_id": None} | only))
    return list(told["account"])


def test_who_may_use_a_template_is_told_for_one_account_or_one_domain(world: World) -> None:
    cloud, bob = world.cloud(hosts=1), world.account("bob")
    for name in ("alice", "carol"):
        world.account(name)
    elsewhere = world.domain("elsewhere")
    template_id = world.template(cloud.zone, "private", owner=bob, is_public=0, is_featured=0)
    with world.db.write() as tx:
        permit(tx, bob, template_id, accounts=["alice", "carol"], operation="add")
    with world.db.read() as tx:
        assert allowed(tx, bob, template_id) == ["alice", "carol"]
        assert allowed(tx, bob, template_id, account_name="alice") == ["alice"]
        assert allowed(tx, bob, template_id, account_name="nobody") == []
        assert allowed(tx, root(), template_id, domain_id=bob.domain_id) == ["alice", "carol"]
        assert allowed(tx, root(), template_id, account_name="alice", domain_id=elsewhere) == []


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
        allowed(tx, alice, template_id)


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
            assert allowed(tx, bob, template_id) == (["alice"] if seen else [])


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
        change(tx, keys.storage_cleanup_enabled, "false", user_id=1)
    cleaned(world, after_seconds=1)
    assert on_pools(world, cloud.template) == ["Ready"]
    with world.db.write() as tx:
        change(tx, keys.storage_cleanup_enabled, "true", user_id=1)
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
