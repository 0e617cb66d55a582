"""Every command that changes something is a part of simulated runs: a new one fails until it is made or excluded."""

from pileus.server.api.command import registry
from pileus.server.registered import register_all
from pileus.testing.simulation.run import tour
from pileus.testing.simulation.wishes import CORE, EXCLUDED, WISHES
from pileus.testing.simulation.workload import changing


def test_a_tour_makes_every_command_that_changes_something() -> None:
    accepted, wrong = tour()
    assert not wrong
    missing = sorted({spec.name for spec in changing()} - accepted)
    assert not missing, f"say in WISHES what these need, or in EXCLUDED why no run makes them: {missing}"


def test_what_is_said_of_commands_is_said_of_commands_there_are() -> None:
    register_all()
    known = {name for name, spec in registry.items() if not spec.reads}
    assert set(WISHES) <= known
    assert set(CORE) <= known
    assert set(EXCLUDED) <= known
    assert all(EXCLUDED.values())
    assert not set(EXCLUDED) & (set(WISHES) | set(CORE))
