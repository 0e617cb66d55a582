"""Stopping and rebooting a guest, whatever goes wrong: what the database says of it is true."""

import pytest
from vm_cases import Case, asked, holds_state, running

from pileus.server.domain.vm import VmState
from pileus.server.services import vm as vm_service
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness

GRACEFUL, FORCED = (
    Soundness[Case](
        "vm.stop",
        prepare=running,
        submit=lambda world, case, forced=forced: asked(  # type: ignore[misc]
            world, case, lambda tx, caller, vm: vm_service.stop(tx, caller, vm, forced=forced)
        ),
        holds=holds_state(VmState.STOPPED),
        restores=False,
    )
    for forced in (False, True)
)

REBOOT = Soundness[Case](
    "vm.reboot",
    prepare=running,
    submit=lambda world, case: asked(world, case, vm_service.reboot),
    holds=holds_state(VmState.RUNNING),
    restores=False,
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_graceful_stop_is_sound(scenario: Scenario) -> None:
    GRACEFUL.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_forced_stop_is_sound(scenario: Scenario) -> None:
    FORCED.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_reboot_is_sound(scenario: Scenario) -> None:
    REBOOT.check(scenario)
