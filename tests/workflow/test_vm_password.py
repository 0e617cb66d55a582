"""A new password, whatever goes wrong: it is told and served, or neither."""

import pytest
from sqlalchemy import update
from vm_cases import Case, asked, stopped

from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.services import vm as vm_service
from pileus.testing import World
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness


def takes_passwords(world: World) -> Case:
    case = stopped(world)
    with world.db.write() as tx:
        tx.execute(update(vm_table).where(vm_table.c.id == case.vm).values(password_enabled=1))
    return case


def is_served(world: World, case: Case) -> None:
    with world.db.read() as tx:
        data = vms.guest_data_of(tx, case.vm)
    assert data is not None
    assert len(data["password"]) >= 8


RESET = Soundness[Case](
    "vm.reset_password",
    prepare=takes_passwords,
    submit=lambda world, case: asked(world, case, vm_service.reset_password),
    holds=is_served,
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_password_reset_is_sound(scenario: Scenario) -> None:
    RESET.check(scenario)
