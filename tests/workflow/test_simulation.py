"""The whole system under seeds: whatever happens, what is left in peace is sound."""

import os
import subprocess
import sys

import pytest

from pileus.testing.simulation import simulate

BROKE_ONCE = (7, 14, 19, 21, 23, 34, 35)
"""Seeds that found bugs, which are gone."""

SEEDS = range(100)
SHORT = 8
BUNDLE = 10


@pytest.mark.parametrize("seed", BROKE_ONCE)
def test_a_seed_that_broke_once_is_sound(seed: int) -> None:
    outcome = simulate(seed)
    assert outcome.ok, str(outcome)


@pytest.mark.parametrize("first", SEEDS[::BUNDLE])
def test_short_runs_leave_a_sound_cloud(first: int) -> None:
    broken = [str(outcome) for seed in range(first, first + BUNDLE) if not (outcome := simulate(seed, acts=SHORT)).ok]
    assert not broken, "\n\n".join(broken)


def test_a_seed_plays_the_same_run_again_also_in_another_process() -> None:
    here = [simulate(7).digest, simulate(7).digest]
    there = subprocess.run(
        [sys.executable, "-c", "from pileus.testing.simulation import simulate; print(simulate(7).digest)"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        # Sets and dictionaries of another process are in another order.
        env={**os.environ, "PYTHONHASHSEED": "42"},
    )
    assert here == [there.stdout.strip()] * 2


def test_different_seeds_play_different_runs() -> None:
    assert simulate(1, acts=SHORT).digest != simulate(2, acts=SHORT).digest
