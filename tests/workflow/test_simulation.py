"""The whole system under seeds: whatever happens, what is left in peace is sound.

A seed means another run whenever the workload changes, so what a seed has found is kept as a small test of its own:
see `test_new_names_and_dns_servers_go_to_the_router_at_once`, `test_each_host_that_attaches_a_new_pool_has_events_...`.
"""

import os
import subprocess
import sys

import pytest

from pileus.testing.simulation import simulate

SEEDS = range(50)
"""As many as a quarter of a minute of processor time plays. `make simulate` plays thousands."""

IMPORT = "from pileus.testing.simulation import simulate"

SHORT = 8
BUNDLE = 10

AGAIN = (60, 61, 62)
"""Some that begin in an empty cloud, and some in an inhabited one."""


@pytest.mark.parametrize("first", SEEDS[::BUNDLE])
def test_whatever_happens_a_cloud_left_in_peace_is_sound(first: int) -> None:
    broken = [str(outcome) for seed in range(first, first + BUNDLE) if not (outcome := simulate(seed)).ok]
    assert not broken, "\n\n".join(broken)


def test_a_seed_plays_the_same_run_again_also_in_another_process_and_order() -> None:
    here = [simulate(seed, acts=SHORT).digest for seed in (*AGAIN, *AGAIN)]
    played = f"[simulate(seed, acts={SHORT}).digest for seed in {AGAIN[::-1]}]"
    there = subprocess.run(
        [sys.executable, "-c", f"{IMPORT}; print(*{played})"],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        # Sets and dictionaries of another process are in another order.
        env={**os.environ, "PYTHONHASHSEED": "42"},
    )
    assert here == there.stdout.split()[::-1] * 2


def test_different_seeds_play_different_runs() -> None:
    assert simulate(1, acts=SHORT).digest != simulate(2, acts=SHORT).digest
