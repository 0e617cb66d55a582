"""Guests after their deploy: what each command does, what it refuses, and who may give it."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select, update
from vm_setup import deployed, refuse, row_of, steady_cloud

from pileus.server.db.queries import count, incarnation
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.tables.volume import volume
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import LimitExceeded, ParameterError, PermissionDenied, PileusError, ResourceInUse
from pileus.server.domain.ids import Id, Vm
from pileus.server.domain.vm import VmState
from pileus.server.services import vm as vm_service
from pileus.testing import World
from pileus.testing.builders import Cloud, root
from pileus.wire.operations import Reason, RebootVm, StartVm, StopVm

Command = Callable[[Tx, Caller, Id[Vm]], Any]


@pytest.fixture
def cloud(world: World) -> Cloud:
    return steady_cloud(world)


@pytest.fixture
def alice(world: World) -> Caller:
    return world.account("alice")


@pytest.fixture
def web(world: World, cloud: Cloud, alice: Caller) -> Id[Vm]:
    return deployed(world, alice, cloud, name="web")


def start(tx: Tx, caller: Caller, vm: Id[Vm]) -> tuple[str, str]:
    return vm_service.start(tx, caller, vm, host_id=None)


def stop(tx: Tx, caller: Caller, vm: Id[Vm]) -> tuple[str, str]:
    return vm_service.stop(tx, caller, vm, forced=False)


def force_stop(tx: Tx, caller: Caller, vm: Id[Vm]) -> tuple[str, str]:
    return vm_service.stop(tx, caller, vm, forced=True)


def destroy(tx: Tx, caller: Caller, vm: Id[Vm]) -> tuple[str, str]:
    return vm_service.destroy(tx, caller, vm, expunge=False)


def expunge(tx: Tx, caller: Caller, vm: Id[Vm]) -> tuple[str, str]:
    return vm_service.destroy(tx, caller, vm, expunge=True)


def update_vm(tx: Tx, caller: Caller, vm: Id[Vm], **changes: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("display_name", "group", "ha_enable", "os_type_id", "user_data"))
    return vm_service.update(tx, caller, vm, **{**nothing, **changes})


def call(world: World, caller: Caller, vm: Id[Vm], command: Command) -> str:
    with world.db.write() as tx:
        return str(command(tx, caller, vm)[0])


def done(world: World, caller: Caller, vm: Id[Vm], command: Command) -> dict[str, Any]:
    return world.result(call(world, caller, vm, command))


def refused(world: World, caller: Caller, vm: Id[Vm], command: Command, kind: type[PileusError]) -> PileusError:
    with pytest.raises(kind) as error, world.db.write() as tx:
        command(tx, caller, vm)
    return error.value


def running_copies(world: World, vm: Id[Vm]) -> list[tuple[str, int]]:
    return world.hosts.world.running(row_of(world, vm)["instance_name"])


def states_of(world: World, type: str) -> list[str]:
    with world.db.read() as tx:
        return list(tx.execute(select(event.c.state).where(event.c.type == type).order_by(event.c.id)).scalars())


def test_stop_and_start_keep_disk_and_address_and_begin_a_new_epoch(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm]
) -> None:
    with world.db.read() as tx:
        before = vm_service.view(tx, root(), web)
        disk = tx.scalar(select(volume.c.path).where(volume.c.vm_id == web))

    done(world, alice, web, stop)
    assert row_of(world, web)["state"] == VmState.STOPPED
    assert running_copies(world, web) == []
    done(world, alice, web, start)

    with world.db.read() as tx:
        after = vm_service.view(tx, root(), web)
        assert tx.scalar(select(volume.c.path).where(volume.c.vm_id == web)) == disk
    assert after["nic"] == before["nic"]
    assert after["host_id"] == before["host_id"]
    assert [epoch for _, epoch in running_copies(world, web)] == [2]
    assert states_of(world, "VM.STOP") == ["Scheduled", "Started", "Completed"]
    world.assert_nothing_left()


def test_a_stop_is_graceful_unless_forced(world: World, alice: Caller, web: Id[Vm]) -> None:
    for command, forced in ((stop, False), (force_stop, True)):
        done(world, alice, web, command)
        order = world.hosts.delivered[-1].operation
        assert isinstance(order, StopVm)
        assert order.forced is forced
        done(world, alice, web, start)


def test_a_start_goes_elsewhere_when_the_last_host_is_down(world: World, alice: Caller, web: Id[Vm]) -> None:
    last = row_of(world, web)["host_id"]
    done(world, alice, web, stop)
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == last).values(state="Down"))

    done(world, alice, web, start)

    assert row_of(world, web)["host_id"] != last


def test_a_start_that_finds_no_host_leaves_the_guest_stopped(world: World, alice: Caller, web: Id[Vm]) -> None:
    done(world, alice, web, stop)
    before = world.left()
    refuse(world, StartVm, Reason.NO_ROOM, "full")

    code, text = world.failure(call(world, alice, web, start))

    assert code == 533
    assert "full" in text
    assert row_of(world, web)["state"] == VmState.STOPPED
    world.assert_nothing_left(before)


def test_an_administrator_chooses_the_host_of_a_start(world: World, cloud: Cloud, alice: Caller, web: Id[Vm]) -> None:
    done(world, alice, web, stop)
    other = next(host_id for host_id in cloud.hosts if host_id != row_of(world, web)["last_host_id"])

    refused(world, alice, web, lambda tx, who, vm: vm_service.start(tx, who, vm, host_id=other), PermissionDenied)
    done(world, root(), web, lambda tx, who, vm: vm_service.start(tx, who, vm, host_id=other))

    assert row_of(world, web)["host_id"] == other


def test_a_reboot_keeps_the_life(world: World, alice: Caller, web: Id[Vm]) -> None:
    before = running_copies(world, web)

    done(world, alice, web, vm_service.reboot)

    assert running_copies(world, web) == before
    assert states_of(world, "VM.REBOOT") == ["Scheduled", "Started", "Completed"]


def test_a_refused_reboot_leaves_a_guest_that_runs(world: World, alice: Caller, web: Id[Vm]) -> None:
    refuse(world, RebootVm, Reason.FAILED, "no")

    assert world.failure(call(world, alice, web, vm_service.reboot))[0] == 534

    assert row_of(world, web)["state"] == VmState.RUNNING
    assert len(running_copies(world, web)) == 1
    world.assert_nothing_left()


@pytest.mark.parametrize(
    ("command", "needs"),
    [(start, "Stopped"), (vm_service.reset_password, "Stopped")],
)
def test_what_needs_a_stopped_guest_is_refused_while_it_runs(
    world: World, alice: Caller, web: Id[Vm], command: Command, needs: str
) -> None:
    with world.db.write() as tx:
        tx.execute(update(vm_table).values(password_enabled=1))

    error = refused(world, alice, web, command, ParameterError)

    assert error.code == 431
    assert f"is Running, not {needs}" in error.text


@pytest.mark.parametrize("command", [stop, vm_service.reboot])
def test_what_needs_a_running_guest_is_refused_while_it_is_stopped(
    world: World, alice: Caller, web: Id[Vm], command: Command
) -> None:
    done(world, alice, web, stop)

    assert "is Stopped, not Running" in refused(world, alice, web, command, ParameterError).text


def test_commands_queue_behind_the_job_that_holds_the_guest(world: World, alice: Caller, web: Id[Vm]) -> None:
    first = call(world, alice, web, stop)
    second = call(world, alice, web, start)
    third = call(world, alice, web, start)

    world.result(first)
    world.result(second)
    code, text = world.failure(third)

    assert code == 431
    assert "is Running, not Stopped" in text
    assert row_of(world, web)["state"] == VmState.RUNNING
    assert len(running_copies(world, web)) == 1


@pytest.mark.parametrize(
    "command", [start, stop, vm_service.reboot, destroy, vm_service.reset_password, update_vm, vm_service.recover]
)
def test_nobody_touches_the_guest_of_another_account(world: World, cloud: Cloud, web: Id[Vm], command: Command) -> None:
    assert refused(world, world.account("bob"), web, command, PermissionDenied).code == 531


def test_a_destroyed_guest_gives_back_addresses_name_and_count_and_keeps_its_disk(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm]
) -> None:
    done(world, alice, web, destroy)

    row = row_of(world, web)
    assert (row["state"], row["name_key"], row["destroyed_at"]) == ("Destroyed", None, row["destroyed_at"])
    assert running_copies(world, web) == []
    with world.db.read() as tx:
        assert vm_service.view(tx, root(), web)["nic"] == []
        assert tx.scalar(select(volume.c.state).where(volume.c.vm_id == web)) == "Ready"
    assert states_of(world, "VM.DESTROY") == ["Scheduled", "Started", "Completed"]
    world.assert_nothing_left()


def test_a_destroyed_guest_cannot_be_destroyed_again(world: World, alice: Caller, web: Id[Vm]) -> None:
    done(world, alice, web, destroy)

    refused(world, alice, web, destroy, ParameterError)


def test_expunge_at_once_is_for_administrators_and_leaves_nothing(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm]
) -> None:
    refused(world, alice, web, expunge, PermissionDenied)

    done(world, root(), web, expunge)

    assert row_of(world, web)["live"] is None
    assert world.hosts.world.volumes() == set()
    world.assert_nothing_left()


def test_a_recovered_guest_has_its_name_new_addresses_and_its_disk(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm]
) -> None:
    done(world, alice, web, destroy)

    with world.db.write() as tx:
        seen = vm_service.recover(tx, root(), web)
    world.settle()

    assert (seen["state"], seen["name"], len(seen["nic"])) == ("Stopped", "web", 1)
    assert seen["nic"][0]["is_default"]
    done(world, alice, web, start)
    assert len(running_copies(world, web)) == 1
    world.assert_nothing_left()


def test_a_guest_is_not_recovered_when_its_name_is_taken(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm]
) -> None:
    done(world, alice, web, destroy)
    deployed(world, alice, cloud, name="web")

    assert "exists in the network domain" in refused(world, alice, web, vm_service.recover, ParameterError).text
    assert row_of(world, web)["state"] == VmState.DESTROYED


def test_a_guest_is_not_recovered_beyond_the_limit(world: World, cloud: Cloud, alice: Caller, web: Id[Vm]) -> None:
    done(world, alice, web, destroy)
    with world.db.write() as tx:
        count.limit(tx, count.ACCOUNT, alice.account_id, Resource.INSTANCE, 0)

    assert refused(world, alice, web, vm_service.recover, LimitExceeded).code == 535


def test_a_guest_that_was_never_destroyed_cannot_be_recovered(world: World, alice: Caller, web: Id[Vm]) -> None:
    refused(world, alice, web, vm_service.recover, ParameterError)


def test_a_guest_that_is_being_expunged_cannot_be_recovered(world: World, alice: Caller, web: Id[Vm]) -> None:
    done(world, alice, web, destroy)
    world.clock.advance(3 * 86400)
    world.reconcile("vm-expunge")

    refused(world, alice, web, vm_service.recover, ResourceInUse)


def test_a_guest_is_expunged_when_its_delay_is_over(world: World, cloud: Cloud, alice: Caller, web: Id[Vm]) -> None:
    done(world, alice, web, destroy)
    world.clock.advance(80_000)
    world.reconcile("vm-expunge")
    world.settle()
    assert row_of(world, web)["state"] == VmState.DESTROYED

    world.clock.advance(2 * 86400)
    world.reconcile("vm-expunge")
    world.settle()

    assert row_of(world, web)["live"] is None
    assert world.hosts.world.volumes() == set()
    assert states_of(world, "VM.EXPUNGE") == ["Completed"]
    world.assert_nothing_left()


def test_no_more_guests_are_expunged_at_once_than_the_setting_says(world: World, cloud: Cloud, alice: Caller) -> None:
    guests = [deployed(world, alice, cloud) for _ in range(3)]
    for each in guests:
        done(world, alice, each, destroy)
    world.clock.advance(3 * 86400)

    world.reconcile("vm-expunge")
    world.reconcile("vm-expunge")

    assert len(world.open_jobs()) == 1
    for left in (2, 1, 0):
        world.settle()
        assert sum(row_of(world, each)["live"] == 1 for each in guests) == left
        world.reconcile("vm-expunge")


def test_a_new_password_is_told_once_and_served_by_the_router(
    world: World, cloud: Cloud, alice: Caller, web: Id[Vm]
) -> None:
    with world.db.write() as tx:
        tx.execute(update(vm_table).where(vm_table.c.id == web).values(password_enabled=1))
    done(world, alice, web, stop)

    password = done(world, alice, web, vm_service.reset_password)["password"]
    done(world, alice, web, start)

    routers = [guest for _, guest in world.hosts.world.guests() if guest.config is not None]
    (served,) = routers[0].config.guests if routers[0].config else ()
    assert served.password == password
    assert len(password) >= 8
    assert states_of(world, "VM.RESETPASSWORD") == ["Scheduled", "Started", "Completed"]
    assert "password" not in done(world, alice, web, stop)


def test_a_guest_whose_template_takes_no_passwords_gets_none(world: World, alice: Caller, web: Id[Vm]) -> None:
    done(world, alice, web, stop)

    assert "does not take passwords" in refused(world, alice, web, vm_service.reset_password, ParameterError).text


def test_an_update_changes_what_users_may_change(world: World, alice: Caller, web: Id[Vm]) -> None:
    data = b64encode(b"hello").decode()

    with world.db.write() as tx:
        seen = update_vm(tx, alice, web, display_name="Shop", group="front", ha_enable=True, user_data=data)
    world.settle()

    assert (seen["display_name"], seen["group"], seen["ha_enable"]) == ("Shop", "front", True)
    with world.db.read() as tx:
        stored = vms.guest_data_of(tx, web)
    assert stored is not None
    assert stored["user_data"] == data
    routers = [guest for _, guest in world.hosts.world.guests() if guest.config is not None]
    assert [each.user_data for each in routers[0].config.guests] == [data]  # type: ignore[union-attr]
    refused(world, alice, web, lambda tx, who, vm: update_vm(tx, who, vm, user_data="?"), ParameterError)


def test_a_new_offering_counts_from_the_next_start(world: World, alice: Caller, web: Id[Vm]) -> None:
    large = world.offering(ram_mib=2048, cpus=2)

    def change(tx: Tx, caller: Caller, vm: Id[Vm]) -> dict[str, Any]:
        return vm_service.change_offering(tx, caller, vm, large)

    refused(world, alice, web, change, ParameterError)
    done(world, alice, web, stop)
    with world.db.write() as tx:
        assert change(tx, alice, web)["memory"] == 2048
    done(world, alice, web, start)

    with world.db.read() as tx:
        life = incarnation.current(tx, web)
    assert life is not None
    assert life.ram_mib == 2048
    assert states_of(world, "VM.UPGRADE") == ["Completed"]
    world.assert_nothing_left()


def test_the_stop_of_a_guest_on_a_dead_host_ends_at_once(world: World, alice: Caller, web: Id[Vm]) -> None:
    where = row_of(world, web)["host_id"]
    world.hosts.silent.add(world.uuid(host, where))
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == where).values(state="Down"))

    done(world, alice, web, stop)

    assert row_of(world, web)["state"] == VmState.STOPPED
    assert [kind for _, kind in world.pending_operations()] == ["StopVm"]
