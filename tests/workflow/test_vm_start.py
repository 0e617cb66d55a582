"""Starting a stopped guest, whatever goes wrong: it runs once, or it is stopped as before and keeps its disk."""

import pytest
from vm_cases import Case, asked, holds_state, stopped

from pileus.server.domain.vm import VmState
from pileus.server.services import vm as vm_service
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness

START = Soundness[Case](
    "vm.start",
    prepare=stopped,
    submit=lambda world, case: asked(
        world, case, lambda tx, caller, vm: vm_service.start(tx, caller, vm, host_id=None)
    ),
    holds=holds_state(VmState.RUNNING),
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_start_is_sound(scenario: Scenario) -> None:
    START.check(scenario)
