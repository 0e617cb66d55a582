"""Plays many seeds: `python -m pileus.testing.simulation --seeds 1000 --from 0`. Exit status 1 when one broke.

A seed that broke is told with what broke and the line that plays it again; `--show SEED` plays one and tells all of it.
"""

import argparse
import resource
import sys
import time
from collections import Counter

from pileus.testing.simulation.faults import KINDS
from pileus.testing.simulation.many import play_many
from pileus.testing.simulation.run import Outcome, simulate
from pileus.testing.simulation.workload import changing

PROGRESS_SECONDS = 10.0

RAREST = 8
"""So many of what was played least are told in the end."""


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="simulate", description="Play the whole system under many seeds.")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to play")
    parser.add_argument("--from", type=int, default=0, dest="first", metavar="SEED", help="the first of them")
    parser.add_argument("--acts", type=int, help="calls in each run, instead of as many as its seed says")
    parser.add_argument("--processes", type=int, default=1, help="how many to play at a time")
    parser.add_argument("--show", type=int, metavar="SEED", help="play one seed and tell everything")
    given = parser.parse_args(arguments)
    if given.show is not None:
        outcome = simulate(given.show, acts=given.acts)
        sys.stdout.write(f"{outcome}\n{outcome.digest}\n")
        return 0 if outcome.ok else 1
    tally = _Tally(range(given.first, given.first + given.seeds), given.acts)
    try:
        for outcome in play_many(tally.seeds, acts=given.acts, processes=given.processes):
            tally.add(outcome)
    except KeyboardInterrupt:
        _say("interrupted")
    tally.end()
    return 1 if tally.broken or tally.played < len(tally.seeds) else 0


class _Tally:
    """What has come out until now."""

    def __init__(self, seeds: range, acts: int | None) -> None:
        self.seeds = seeds
        self.played = 0
        self.broken: list[int] = []
        self._how = "" if acts is None else f" --acts {acts}"
        self._began = self._told = time.monotonic()
        self._accepted: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Another seed was played."""
        self.played += 1
        self._accepted.update(outcome.accepted)
        self._faults.update(outcome.faults)
        if not outcome.ok:
            self.broken.append(outcome.seed)
            again = f"python -m pileus.testing.simulation --show {outcome.seed}{self._how}"
            _say("\n  ".join([f"seed {outcome.seed} broke, again with: {again}", *outcome.wrong]))
        if time.monotonic() - self._told > PROGRESS_SECONDS:
            self._told = time.monotonic()
            seconds = self._told - self._began
            left = seconds / self.played * (len(self.seeds) - self.played)
            _say(f"{self.played} of {len(self.seeds)} seeds, {len(self.broken)} broke, about {left:.0f} s to go")

    def end(self) -> None:
        """Tell all of it, in the last line the figures."""
        known = {spec.name: self._accepted[spec.name] for spec in changing()}
        _say(_rarest("commands accepted least", known))
        _say(_rarest("faults that struck least", {kind: self._faults[kind] for kind in KINDS}))
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = sum(each.ru_utime + each.ru_stime for each in used) / max(self.played, 1)
        names = f": {' '.join(map(str, sorted(self.broken)))}" if self.broken else ""
        _say(
            f"{self.played} seeds from {self.seeds.start}, {len(self.broken)} broke{names};"
            f" {time.monotonic() - self._began:.0f} s, {cpu:.3f} s of processor time a seed,"
            f" at most {used[1].ru_maxrss // 1024} MiB a process"
        )


def _rarest(what: str, counts: dict[str, int]) -> str:
    least = sorted(counts.items(), key=lambda each: (each[1], each[0]))[:RAREST]
    return f"{what}: {', '.join(f'{name} {n}' for name, n in least)}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
