"""Destroying and expunging a guest, whatever goes wrong: nothing of it stays that nobody sees to."""

import pytest
from sqlalchemy import select
from vm_cases import Case, asked, holds_state, ref_of, result_of, running

from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.volume import volume
from pileus.server.domain.vm import VmState
from pileus.server.jobs.submit import JobRef, Owner, submit
from pileus.server.services import vm as vm_service
from pileus.server.workflows.vm_destroy import expunge_vm
from pileus.testing import World
from pileus.testing.builders import root
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness


def destroyed(world: World) -> Case:
    case = running(world)
    result_of(world, asked(world, case, lambda tx, caller, vm: vm_service.destroy(tx, caller, vm, expunge=False)))
    return case


def expunge(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        row = vms.by_id(tx, case.vm)
        return submit(
            tx,
            expunge_vm(vm=case.vm),
            Owner(row["account_id"], row["domain_id"], 1),
            command="expungeVirtualMachine",
            instance_kind="VirtualMachine",
            instance_id=case.vm,
            resource_key=f"vm:{case.vm}",
        )


def destroy_at_once(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        job_uuid, _ = vm_service.destroy(tx, root(), case.vm, expunge=True)
    return ref_of(world, job_uuid)


def is_gone(world: World, case: Case) -> None:
    with world.db.read() as tx:
        assert vms.by_id(tx, case.vm)["live"] is None
        assert tx.all(select(volume.c.id).where(volume.c.vm_id == case.vm, volume.c.live == 1)) == []


DESTROY = Soundness[Case](
    "vm.destroy",
    prepare=running,
    submit=lambda world, case: asked(
        world, case, lambda tx, caller, vm: vm_service.destroy(tx, caller, vm, expunge=False)
    ),
    holds=holds_state(VmState.DESTROYED),
    restores=False,
)

AT_ONCE = Soundness[Case]("vm.destroy", prepare=running, submit=destroy_at_once, holds=is_gone, restores=False)

EXPUNGE = Soundness[Case]("vm.expunge", prepare=destroyed, submit=expunge, holds=is_gone, restores=False)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_destruction_is_sound(scenario: Scenario) -> None:
    DESTROY.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_destruction_that_expunges_at_once_is_sound(scenario: Scenario) -> None:
    AT_ONCE.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_expunge_is_sound(scenario: Scenario) -> None:
    EXPUNGE.check(scenario)
