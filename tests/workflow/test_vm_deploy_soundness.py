"""Deploying a guest, whatever goes wrong: it runs once, or nothing of it is left."""

import pytest
from vm_cases import Case, fresh, holds_state, ordered, with_neighbour

from pileus.server.domain.vm import VmState
from pileus.server.jobs.submit import JobRef
from pileus.testing import World
from pileus.testing.networks import direct_network, virtual_network
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


def on_two_networks(world: World, case: Case) -> JobRef:
    """A guest on the account's running network and on a Direct one that nobody has used yet."""
    own = virtual_network(world, case.caller, case.cloud.zone)
    lan = direct_network(world, case.caller, case.cloud.zone)
    return ordered(world, case, network_ids=(own, lan))


WITH_TWO_CARDS = Soundness[Case](
    "vm.deploy",
    prepare=with_neighbour,
    submit=on_two_networks,
    holds=holds_state(VmState.RUNNING),
    restores=False,
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


@pytest.mark.parametrize("scenario", [Scenario.STEPS_TWICE, Scenario.UNDOS_TWICE])
def test_a_deploy_on_two_networks_is_sound(scenario: Scenario) -> None:
    WITH_TWO_CARDS.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_creation_without_a_start_is_sound(scenario: Scenario) -> None:
    STOPPED.check(scenario)
