"""Closing accounts, users and domains, whatever goes wrong: nobody let in who was shut out, nothing of theirs left."""

from dataclasses import dataclass, replace

import pytest
from sqlalchemy import select
from vm_cases import Case, fresh, ordered, ref_of, result_of, running

from pileus.server.db.queries import account as accounts
from pileus.server.db.queries import template as template_queries
from pileus.server.db.tables.account import account, domain, users
from pileus.server.db.tables.template import template_permission
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.volume import volume
from pileus.server.domain.caller import Caller, root_caller
from pileus.server.domain.ids import Id, Vm
from pileus.server.domain.vm import VmState
from pileus.server.jobs.submit import JobRef, Owner, submit
from pileus.server.services import account as account_service
from pileus.server.services import domain as domain_service
from pileus.server.services import user as user_service
from pileus.server.workflows.belongings import clear_vm, clear_volume
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness


@dataclass
class Owned:
    """A cloud, and an account of a domain of its own with a user and something of every sort."""

    cloud: Cloud | None
    caller: Caller
    user: int
    volume: int


def owning(world: World) -> Owned:
    """An account with a guest that runs, its data disk, a template and a right to another."""
    case = fresh(world)
    caller = world.account("bob", domain_id=world.domain("d"))
    theirs = Case(case.cloud, caller, Id[Vm](0))
    result_of(world, ordered(world, theirs, name="web", disk_offering_id=world.disk_offering()))
    world.template(case.cloud.zone, owner=caller)
    shared = world.template(case.cloud.zone)
    with world.db.write() as tx:
        template_queries.permit(tx, shared, [caller.account_id])
        user = tx.scalar(select(users.c.id).where(users.c.account_id == caller.account_id))
        loose = tx.scalar(select(volume.c.id).where(volume.c.kind == "DATADISK"))
    return Owned(case.cloud, caller, int(user), int(loose))


def empty(world: World) -> Owned:
    """A domain with an account that owns nothing."""
    caller = world.account("bob", domain_id=world.domain("d"))
    with world.db.read() as tx:
        user = tx.scalar(select(users.c.id).where(users.c.account_id == caller.account_id))
    return Owned(None, caller, int(user), 0)


def unused(world: World) -> Owned:
    """A domain nothing is in."""
    return Owned(None, replace(root_caller(), domain_id=world.domain("d")), 0, 0)


def disable_account(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        uuid = account_service.disable(
            tx, root_caller(), account_id=case.caller.account_id, name=None, domain_id=None, only_lock=False
        )
    return ref_of(world, uuid)


def all_stopped(world: World, case: Case) -> None:
    with world.reading() as tx:
        states = tx.all(select(vm.c.state).where(vm.c.kind == "User", vm.c.live == 1))
        assert {row["state"] for row in states} == {str(VmState.STOPPED)}
        assert tx.scalar(select(account.c.state).where(account.c.id == case.caller.account_id)) == "disabled"


def delete_account(world: World, case: Owned) -> JobRef:
    with world.db.write() as tx:
        uuid = account_service.delete(tx, root_caller(), case.caller.account_id)
    return ref_of(world, uuid)


def account_gone(world: World, case: Owned) -> None:
    """Nothing that was the account's is left: no row, no guest, no file."""
    with world.reading() as tx:
        assert tx.scalar(select(account.c.live).where(account.c.id == case.caller.account_id)) is None
        assert tx.scalar(select(users.c.live).where(users.c.id == case.user)) is None
        assert accounts.belongings(tx, case.caller.account_id) == {}
        assert tx.all(select(template_permission)) == []
    assert not list(world.hosts.world.guests())
    assert not world.hosts.world.volumes()
    assert not world.hosts.world.bridges()


def delete_domain(world: World, case: Owned) -> JobRef:
    with world.db.write() as tx:
        uuid = domain_service.delete(tx, root_caller(), case.caller.domain_id, cleanup=True)
    return ref_of(world, uuid)


def delete_unused_domain(world: World, case: Owned) -> JobRef:
    with world.db.write() as tx:
        uuid = domain_service.delete(tx, root_caller(), case.caller.domain_id, cleanup=False)
    return ref_of(world, uuid)


def domain_gone(world: World, case: Owned) -> None:
    account_gone(world, case)
    unused_gone(world, case)


def unused_gone(world: World, case: Owned) -> None:
    with world.reading() as tx:
        assert tx.scalar(select(domain.c.live).where(domain.c.id == case.caller.domain_id)) is None


def clear_guest(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        return submit(
            tx,
            clear_vm(vm=case.vm),
            Owner(case.caller.account_id, case.caller.domain_id, 1),
            command="destroyVirtualMachine",
            resource_key=f"vm:{case.vm}",
        )


def guest_gone(world: World, case: Case) -> None:
    with world.reading() as tx:
        assert tx.scalar(select(vm.c.live).where(vm.c.id == case.vm)) is None


def loose_volume(world: World) -> Owned:
    """A data disk whose guest is gone."""
    case = owning(world)
    with world.db.write() as tx:
        guest = tx.scalar(select(volume.c.vm_id).where(volume.c.id == case.volume))
    result_of(world, clear_guest(world, Case(case.cloud, case.caller, Id[Vm](int(guest)))))
    return case


def clear_disk(world: World, case: Owned) -> JobRef:
    with world.db.write() as tx:
        return submit(
            tx,
            clear_volume(volume=case.volume),
            Owner(case.caller.account_id, case.caller.domain_id, 1),
            command="deleteVolume",
            resource_key=f"volume:{case.volume}",
        )


def disk_gone(world: World, case: Owned) -> None:
    with world.reading() as tx:
        assert tx.scalar(select(volume.c.live).where(volume.c.id == case.volume)) is None


def disable_user(world: World, case: Owned) -> JobRef:
    with world.db.write() as tx:
        uuid = user_service.disable(tx, root_caller(), Id(case.user))
    return ref_of(world, uuid)


def user_disabled(world: World, case: Owned) -> None:
    with world.reading() as tx:
        assert tx.scalar(select(users.c.state).where(users.c.id == case.user)) == "disabled"


DISABLE_ACCOUNT = Soundness[Case](
    "account.disable", prepare=running, submit=disable_account, holds=all_stopped, restores=False
)
DELETE_ACCOUNT = Soundness[Owned](
    "account.delete", prepare=owning, submit=delete_account, holds=account_gone, restores=False
)
DELETE_DOMAIN = Soundness[Owned](
    "domain.delete", prepare=empty, submit=delete_domain, holds=domain_gone, restores=False
)
DELETE_UNUSED = Soundness[Owned]("domain.delete", prepare=unused, submit=delete_unused_domain, holds=unused_gone)
CLEAR_GUEST = Soundness[Case]("vm.clear", prepare=running, submit=clear_guest, holds=guest_gone, restores=False)
CLEAR_VOLUME = Soundness[Owned](
    "volume.clear", prepare=loose_volume, submit=clear_disk, holds=disk_gone, restores=False
)
DISABLE_USER = Soundness[Owned]("user.disable", prepare=empty, submit=disable_user, holds=user_disabled)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disabling_an_account_is_sound(scenario: Scenario) -> None:
    DISABLE_ACCOUNT.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_deleting_an_account_is_sound(scenario: Scenario) -> None:
    DELETE_ACCOUNT.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_deleting_an_empty_domain_is_sound(scenario: Scenario) -> None:
    DELETE_UNUSED.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_taking_a_guest_from_its_owner_is_sound(scenario: Scenario) -> None:
    CLEAR_GUEST.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_taking_a_volume_from_its_owner_is_sound(scenario: Scenario) -> None:
    CLEAR_VOLUME.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_deleting_a_domain_is_sound(scenario: Scenario) -> None:
    DELETE_DOMAIN.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disabling_a_user_is_sound(scenario: Scenario) -> None:
    DISABLE_USER.check(scenario)
