"""What hosts hold against what the database believes."""

import pytest
from sqlalchemy import select, update
from vm_setup import deployed, refuse, row_of, steady_cloud

from pileus.server.db.queries import incarnation
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Id, Vm
from pileus.server.domain.vm import VmState
from pileus.server.hosts.operations import Waiting
from pileus.server.services import router as router_service
from pileus.server.services import template as template_service
from pileus.server.services import vm as vm_service
from pileus.server.services import vm_sync
from pileus.testing import World
from pileus.testing.builders import Cloud, root
from pileus.testing.networks import router_of, running_network
from pileus.wire.messages import Answer, VmChange, VmSeen
from pileus.wire.operations import DeleteImage, DeleteVolume, Reason, RebootVm, StartRouter, StartVm, StopRouter, StopVm

GUEST_UUID = "5f4dcc3b-5aa7-4d1e-8b27-0242ac120002"


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def alice(world: World) -> Caller:
    return world.account("alice")


@pytest.fixture
def web(world: World, cloud: Cloud, alice: Caller) -> Id[Vm]:
    return deployed(world, alice, cloud, name="web")


def connect(world: World, host_id: int) -> None:
    """The host comes back and tells what it holds."""
    holds = world.hosts.intro(world.uuid(host, host_id)).holds
    with world.db.write() as tx:
        vm_sync.inventory(tx, host_id, holds)


def tell(world: World, vm_id: int, change: VmChange, *, epoch: int = 1) -> None:
    row = row_of(world, vm_id)
    with world.db.write() as tx:
        vm_sync.happened(tx, row["host_id"], uuid=row["uuid"], epoch=epoch, change=change)


def copies(world: World, vm_id: int) -> list[tuple[str, int]]:
    return world.hosts.world.running(row_of(world, vm_id)["instance_name"])


def crash(world: World, vm_id: int) -> None:
    row = row_of(world, vm_id)
    world.hosts.world.hosts[world.uuid(host, row["host_id"])].guests.pop(row["instance_name"])


def test_a_host_that_holds_what_it_should_changes_nothing(world: World, cloud: Cloud, web: Id[Vm]) -> None:
    before = world.left()

    for host_id in cloud.hosts:
        connect(world, host_id)
    world.settle()

    assert row_of(world, web)["state"] == VmState.RUNNING
    world.assert_nothing_left(before)


def test_a_guest_that_is_gone_from_its_host_is_stopped_and_its_room_is_free(
    world: World, cloud: Cloud, web: Id[Vm]
) -> None:
    where = row_of(world, web)["host_id"]
    crash(world, web)

    connect(world, where)
    world.settle()

    row = row_of(world, web)
    assert (row["state"], row["host_id"], row["last_host_id"]) == (VmState.STOPPED, None, where)
    with world.db.read() as tx:
        assert incarnation.current(tx, web) is None
        stops = tx.all(select(event).where(event.c.type == "VM.STOP"))
    assert [row["resource_id"] for row in stops] == [web]


def test_a_guest_that_a_job_holds_is_left_to_its_job(world: World, cloud: Cloud, alice: Caller, web: Id[Vm]) -> None:
    where = row_of(world, web)["host_id"]
    crash(world, web)
    with world.db.write() as tx:
        vm_service.stop(tx, alice, web, forced=True)

    connect(world, where)

    assert row_of(world, web)["state"] == VmState.RUNNING
    world.settle()
    assert row_of(world, web)["state"] == VmState.STOPPED


@pytest.mark.parametrize("kind", [StartVm, StartRouter])
def test_what_dies_before_its_job_has_looked_is_started_again(
    world: World, alice: Caller, kind: type[StartVm | StartRouter]
) -> None:
    cloud = world.cloud()
    died = []

    def die_at_once(order: Waiting, answer: Answer) -> list[Answer]:
        start = order.operation
        if died or not isinstance(start, kind):
            return [answer]
        spec = start.vm if isinstance(start, StartVm) else start.router
        died.append(spec.name)
        world.store(order.host_id, answer)
        world.hosts.backend(world.uuid(host, order.host_id)).crash_guest(spec.name)
        with world.db.write() as tx:
            vm_sync.happened(tx, order.host_id, uuid=spec.uuid, epoch=spec.epoch, change=VmChange.CRASHED)
        return [answer]  # Once more: it changes nothing.

    world.intercept = die_at_once
    network_id = running_network(world, alice, cloud.zone)
    web = deployed(world, alice, cloud, name="web", network_ids=(network_id,))
    world.settle()

    assert died
    assert len(copies(world, web)) == 1
    assert len(world.hosts.world.running(router_of(world, network_id).name)) == 1
    world.assert_nothing_left()


@pytest.mark.parametrize("news", ["told at once", "after the power was lost"])
def test_what_ends_while_its_reboot_is_open_runs_again(world: World, cloud: Cloud, web: Id[Vm], news: str) -> None:
    ended = []

    def end(order: Waiting, answer: Answer) -> list[Answer]:
        if ended or not isinstance(order.operation, RebootVm):
            return [answer]
        spec = order.operation.vm
        ended.append(spec.name)
        uuid = world.uuid(host, order.host_id)
        if news == "told at once":
            world.store(order.host_id, answer)
            world.hosts.backend(uuid).crash_guest(spec.name)
            with world.db.write() as tx:
                vm_sync.happened(tx, order.host_id, uuid=spec.uuid, epoch=spec.epoch, change=VmChange.CRASHED)
            return [answer]
        world.hosts.backend(uuid).lose_power()
        connect(world, order.host_id)
        return world.hosts.late_answers(uuid)

    world.intercept = end
    with world.db.write() as tx:
        vm_service.reboot(tx, root(), web)
    world.settle()

    assert ended
    assert len(copies(world, web)) == 1
    assert row_of(world, web)["state"] == VmState.RUNNING


@pytest.mark.parametrize("kind", [StartVm, StartRouter])
def test_what_ends_before_its_answer_has_come_is_started_again(
    world: World, alice: Caller, kind: type[StartVm | StartRouter]
) -> None:
    cloud = world.cloud()
    ended = []

    def end_and_connect_anew(order: Waiting, answer: Answer) -> list[Answer]:
        start = order.operation
        if ended or not isinstance(start, kind):
            return [answer]
        spec = start.vm if isinstance(start, StartVm) else start.router
        ended.append(spec.name)
        uuid = world.uuid(host, order.host_id)
        world.hosts.backend(uuid).lose_power()
        connect(world, order.host_id)
        return world.hosts.late_answers(uuid)

    world.intercept = end_and_connect_anew
    network_id = running_network(world, alice, cloud.zone)
    web = deployed(world, alice, cloud, name="web", network_ids=(network_id,))
    world.settle()

    assert ended
    assert len(copies(world, web)) == 1
    assert len(world.hosts.world.running(router_of(world, network_id).name)) == 1
    world.assert_nothing_left()


@pytest.mark.parametrize("epoch", [0, 7])
def test_a_copy_of_another_epoch_is_ended(world: World, cloud: Cloud, web: Id[Vm], epoch: int) -> None:
    row = row_of(world, web)
    other = next(host_id for host_id in cloud.hosts if host_id != row["host_id"])
    seen = VmSeen(row["instance_name"], row["uuid"], epoch, running=True)

    holds = [*world.hosts.intro(world.uuid(host, other)).holds, seen]
    for _ in range(2):
        with world.db.write() as tx:
            vm_sync.inventory(tx, other, holds)

    assert [kind for _, kind in world.pending_operations()] == ["StopVm"]
    world.settle()
    assert row_of(world, web)["state"] == VmState.RUNNING
    assert len(copies(world, web)) == 1


@pytest.mark.parametrize("router", [False, True])
def test_what_nobody_knows_is_ended(world: World, cloud: Cloud, router: bool) -> None:
    seen = VmSeen("i-9-9-VM", GUEST_UUID, 3, running=True, router=router)

    with world.db.write() as tx:
        vm_sync.inventory(tx, cloud.hosts[0], [seen])

    assert [kind for _, kind in world.pending_operations()] == ["StopRouter" if router else "StopVm"]
    world.settle()
    assert world.pending_operations() == []


@pytest.mark.parametrize("change", [VmChange.STOPPED, VmChange.CRASHED])
def test_a_guest_that_stops_by_itself_is_stopped(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm], change: VmChange
) -> None:
    tell(world, web, change)
    world.settle()

    assert row_of(world, web)["state"] == VmState.STOPPED
    world.assert_nothing_left()
    with world.db.write() as tx:
        job_uuid, _ = vm_service.start(tx, alice, web, host_id=None)
    world.result(job_uuid)
    assert [epoch for _, epoch in copies(world, web)] == [2]


@pytest.mark.parametrize("change", [VmChange.STARTED, VmChange.REBOOTED])
def test_a_guest_that_reboots_by_itself_still_runs(world: World, web: Id[Vm], change: VmChange) -> None:
    tell(world, web, change)
    world.settle()

    assert row_of(world, web)["state"] == VmState.RUNNING


def test_news_of_an_old_epoch_is_not_believed(world: World, alice: Caller, web: Id[Vm]) -> None:
    tell(world, web, VmChange.STOPPED, epoch=0)
    world.settle()

    assert row_of(world, web)["state"] == VmState.RUNNING


def test_news_of_strangers_are_nothing(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        vm_sync.happened(tx, cloud.hosts[0], uuid=GUEST_UUID, epoch=1, change=VmChange.STOPPED)

    assert world.pending_operations() == []


def test_a_router_that_is_gone_runs_again(world: World, cloud: Cloud, web: Id[Vm]) -> None:
    with world.db.read() as tx:
        router = tx.one(select(vm_table).where(vm_table.c.kind == "DomainRouter"))
    assert router is not None
    crash(world, router["id"])

    connect(world, router["host_id"])
    assert row_of(world, router["id"])["state"] == VmState.STOPPED
    world.settle()
    world.clock.advance(120)
    world.reconcile("network-config")
    world.settle()

    assert row_of(world, router["id"])["state"] == VmState.RUNNING
    assert len(world.hosts.world.running(router["instance_name"])) == 1
    world.assert_nothing_left()


def ending(world: World, vm_id: int) -> None:
    """A life that nobody ends any more."""
    with world.db.write() as tx:
        life = incarnation.current(tx, vm_id)
        assert life is not None
        incarnation.ending(tx, life)
        tx.execute(update(vm_table).where(vm_table.c.id == vm_id).values(state="Stopped"))


def test_a_life_that_no_job_ends_any_more_is_ended(world: World, cloud: Cloud, web: Id[Vm]) -> None:
    ending(world, web)

    world.reconcile("vm-sync")
    world.settle()
    world.reconcile("vm-sync")

    assert copies(world, web) == []
    with world.db.read() as tx:
        assert incarnation.current(tx, web) is None
    world.assert_nothing_left()


def test_its_host_is_asked_again_after_a_refusal(world: World, cloud: Cloud, web: Id[Vm]) -> None:
    ending(world, web)
    refuse(world, StopVm, Reason.FAILED)
    world.reconcile("vm-sync")
    world.settle()
    world.instead = lambda waiting: None
    world.clock.advance(60)

    world.reconcile("vm-sync")
    world.settle()
    world.reconcile("vm-sync")

    assert copies(world, web) == []
    with world.db.read() as tx:
        assert incarnation.current(tx, web) is None


def test_on_a_dead_host_it_is_over(world: World, cloud: Cloud, web: Id[Vm]) -> None:
    ending(world, web)
    with world.db.write() as tx:
        tx.execute(update(host).values(state="Down"))

    world.reconcile("vm-sync")

    with world.db.read() as tx:
        assert incarnation.current(tx, web) is None


def test_a_file_whose_host_was_down_goes_though_the_host_refuses_once(world: World, cloud: Cloud, web: Id[Vm]) -> None:
    world.refuses_delivery = lambda waiting: True
    with world.db.write() as tx:
        tx.execute(update(host).values(state="Down"))
        vm_service.destroy(tx, root(), web, expunge=True)
    world.settle()
    assert [kind for _, kind in world.pending_operations() if kind == "DeleteVolume"]
    assert row_of(world, web)["live"] is None

    with world.db.write() as tx:
        tx.execute(update(host).values(state="Up"))
    world.refuses_delivery = lambda waiting: False
    refuse(world, DeleteVolume, Reason.FAILED)
    world.settle()
    world.instead = lambda waiting: None
    assert list(world.hosts.world.volumes())

    world.reconcile("vm-sync")
    world.settle()
    assert list(world.hosts.world.volumes()) == []


def test_an_image_whose_storage_was_down_goes_though_it_refuses_once(world: World, cloud: Cloud, alice: Caller) -> None:
    template_id = world.template(cloud.zone, "mine", owner=alice)
    there = len(world.stores[cloud.storage].images)
    world.refuses_delivery = lambda waiting: True
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == cloud.storage).values(state="Down"))
        template_service.delete(tx, alice, template_id, None)
    world.settle()
    assert [kind for _, kind in world.pending_operations()] == ["DeleteImage"]

    with world.db.write() as tx:
        tx.execute(update(host).values(state="Up"))
    world.refuses_delivery = lambda waiting: False
    refuse(world, DeleteImage, Reason.FAILED)
    world.settle()
    world.instead = lambda waiting: None
    assert len(world.stores[cloud.storage].images) == there

    world.reconcile("vm-sync")
    world.settle()
    assert len(world.stores[cloud.storage].images) == there - 1


def test_a_router_whose_host_was_down_goes_though_the_host_refuses_once(world: World, alice: Caller) -> None:
    cloud = world.cloud(hosts=1)
    router = router_of(world, running_network(world, alice, cloud.zone))
    world.refuses_delivery = lambda waiting: True
    with world.db.write() as tx:
        tx.execute(update(host).values(state="Down"))
        job = router_service.destroy(tx, root(), router.id)
    world.result(job)
    with world.db.write() as tx:
        tx.execute(update(host).values(state="Up"))
    world.refuses_delivery = lambda waiting: False
    refuse(world, StopRouter, Reason.FAILED)
    world.settle()
    world.instead = lambda waiting: None
    assert world.hosts.world.running(router.name)

    world.reconcile("vm-sync")
    world.settle()
    assert list(world.hosts.world.guests()) == []
