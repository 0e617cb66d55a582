"""Plays many seeds: `python -m pileus.testing.simulation --seeds 1000 --from 0`. Exit status 1 when one broke.

A seed that broke is told with what broke; `--show SEED` plays one and tells all of it.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from pileus.testing.simulation.run import ACTS, Outcome, simulate

PROGRESS_SECONDS = 10.0
AT_ONCE = 8
"""Seeds that a process is given at a time."""


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="simulate", description="Play the whole system under many seeds.")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to play")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first of them")
    parser.add_argument("--acts", type=int, default=ACTS, help="calls in each run")
    parser.add_argument("--processes", type=int, default=1, choices=(1, 2), help="how many to play at a time")
    parser.add_argument("--show", type=int, metavar="SEED", help="play one seed and tell everything")
    given = parser.parse_args(arguments)
    if given.show is not None:
        outcome = simulate(given.show, acts=given.acts)
        sys.stdout.write(f"{outcome}\n{outcome.digest}\n")
        return 0 if outcome.ok else 1
    began, told = time.monotonic(), time.monotonic()
    broken: list[int] = []
    seeds = range(given.first, given.first + given.seeds)
    for played, outcome in enumerate(_outcomes(seeds, given.acts, given.processes), 1):
        if not outcome.ok:
            broken.append(outcome.seed)
            sys.stdout.write(f"seed {outcome.seed} broke:\n  " + "\n  ".join(outcome.wrong) + "\n")
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            sys.stdout.write(f"{played} of {len(seeds)} seeds, {len(broken)} broke\n")
        sys.stdout.flush()
    seconds = time.monotonic() - began
    names = f": {' '.join(map(str, broken))}" if broken else ""
    sys.stdout.write(f"{len(seeds)} seeds from {given.first} in {seconds:.0f} s, {len(broken)} broke{names}\n")
    return 1 if broken else 0


def _outcomes(seeds: range, acts: int, processes: int) -> Iterator[Outcome]:
    if processes == 1:
        for seed in seeds:
            yield _play((seed, acts))
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(_play, ((seed, acts) for seed in seeds), chunksize=AT_ONCE)


def _play(task: tuple[int, int]) -> Outcome:
    seed, acts = task
    outcome = simulate(seed, acts=acts)
    # The trace of a sound run is of no interest, and can be had again.
    return outcome if not outcome.ok else Outcome(seed, (), outcome.digest, ())


if __name__ == "__main__":
    sys.exit(main())
