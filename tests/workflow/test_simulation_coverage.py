"""Every command that changes something is a part of simulated runs: a new one fails until it is made or excluded."""

from collections import Counter

from pileus.server.api.command import registry
from pileus.server.registered import register_all
from pileus.testing.simulation.run import tour
from pileus.testing.simulation.wishes import CORE, EXCLUDED, WISHES
from pileus.testing.simulation.workload import changing, liking

WHAT_TO_DO = """No simulated run can make these commands: {}.

A wish says what a command needs beyond what its declaration says: write one, `@wish("theCommand")`, in
pileus/testing/simulation/*_wishes.py, which returns its parameters from what is there. Only what no run can make goes
to EXCLUDED in wishes.py, with the reason. See docs/simulation.md.
"""


def test_a_tour_makes_every_command_that_changes_something() -> None:
    accepted, wrong = tour()
    assert not wrong
    missing = sorted({spec.name for spec in changing()} - accepted)
    assert not missing, WHAT_TO_DO.format(", ".join(missing))


def test_in_a_hundred_runs_every_command_is_liked_by_some_or_made_by_all() -> None:
    register_all()
    liked = Counter(name for seed in range(100) for name in liking(seed))
    rare = {spec.name: liked[spec.name] for spec in changing() if spec.name not in CORE and liked[spec.name] < 5}
    assert not rare, f"too many nouns for LIKED_NOUNS: of a hundred runs so many like them {rare}"


def test_what_is_said_of_commands_is_said_of_commands_there_are() -> None:
    register_all()
    known = {name for name, spec in registry.items() if not spec.reads}
    assert set(WISHES) <= known
    assert set(CORE) <= known
    assert set(EXCLUDED) <= known
    assert all(EXCLUDED.values())
    assert not set(EXCLUDED) & (set(WISHES) | set(CORE))
