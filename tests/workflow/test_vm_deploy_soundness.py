"""Deploying a guest, whatever goes wrong: it runs once, or nothing of it is left."""

import pytest
from vm_cases import Case, fresh, holds_state, ordered, with_neighbour

from pileus.server.domain.vm import VmState
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness

DEPLOY = Soundness[Case](
    "vm.deploy",
    prepare=with_neighbour,
    submit=ordered,
    holds=holds_state(VmState.RUNNING),
)

FIRST_DEPLOY = Soundness[Case](
    "vm.deploy",
    prepare=fresh,
    submit=ordered,
    holds=holds_state(VmState.RUNNING),
    restores=False,
)

WITH_DATA_DISK = Soundness[Case](
    "vm.deploy",
    prepare=with_neighbour,
    submit=lambda world, case: ordered(world, case, disk_offering_id=world.disk_offering()),
    holds=holds_state(VmState.RUNNING),
)

STOPPED = Soundness[Case](
    "vm.create",
    prepare=with_neighbour,
    submit=lambda world, case: ordered(world, case, start=False),
    holds=holds_state(VmState.STOPPED),
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_deploy_is_sound(scenario: Scenario) -> None:
    DEPLOY.check(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_first_deploy_of_an_account_is_sound(scenario: Scenario) -> None:
    FIRST_DEPLOY.check(scenario)


@pytest.mark.parametrize("scenario", [Scenario.STRAIGHT, Scenario.STEPS_TWICE, Scenario.UNDOS_TWICE])
def test_a_deploy_with_a_data_disk_is_sound(scenario: Scenario) -> None:
    WITH_DATA_DISK.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_creation_without_a_start_is_sound(scenario: Scenario) -> None:
    STOPPED.check(scenario)
