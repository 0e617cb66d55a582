"""Closing accounts, users and domains, whatever goes wrong: nothing half gone, nobody let in who was shut out."""

from dataclasses import dataclass

import pytest
from sqlalchemy import select
from vm_cases import Case, ref_of, running

from pileus.server.db.tables.account import account, domain, users
from pileus.server.db.tables.vm import vm
from pileus.server.domain.caller import Caller, root_caller
from pileus.server.domain.ids import Id
from pileus.server.domain.vm import VmState
from pileus.server.jobs.submit import JobRef
from pileus.server.services import account as account_service
from pileus.server.services import domain as domain_service
from pileus.server.services import user as user_service
from pileus.testing import World
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness


@dataclass
class Owned:
    """An account of a domain of its own, with a user."""

    caller: Caller
    user: int


def empty(world: World) -> Owned:
    """An account that owns nothing."""
    caller = world.account("alice", domain_id=world.domain("d"))
    with world.db.read() as tx:
        user = tx.scalar(select(users.c.id).where(users.c.account_id == caller.account_id))
    return Owned(caller, int(user))


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
    with world.reading() as tx:
        assert tx.scalar(select(account.c.live).where(account.c.id == case.caller.account_id)) is None
        assert tx.scalar(select(users.c.live).where(users.c.id == case.user)) is None


def delete_domain(world: World, case: Owned) -> JobRef:
    with world.db.write() as tx:
        uuid = domain_service.delete(tx, root_caller(), case.caller.domain_id, cleanup=True)
    return ref_of(world, uuid)


def domain_gone(world: World, case: Owned) -> None:
    account_gone(world, case)
    with world.reading() as tx:
        assert tx.scalar(select(domain.c.live).where(domain.c.id == case.caller.domain_id)) is None


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
DELETE_ACCOUNT = Soundness[Owned]("account.delete", prepare=empty, submit=delete_account, holds=account_gone)
DELETE_DOMAIN = Soundness[Owned]("domain.delete", prepare=empty, submit=delete_domain, holds=domain_gone)
DISABLE_USER = Soundness[Owned]("user.disable", prepare=empty, submit=disable_user, holds=user_disabled)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disabling_an_account_is_sound(scenario: Scenario) -> None:
    DISABLE_ACCOUNT.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_deleting_an_account_is_sound(scenario: Scenario) -> None:
    DELETE_ACCOUNT.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_deleting_a_domain_is_sound(scenario: Scenario) -> None:
    DELETE_DOMAIN.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_disabling_a_user_is_sound(scenario: Scenario) -> None:
    DISABLE_USER.check(scenario)
