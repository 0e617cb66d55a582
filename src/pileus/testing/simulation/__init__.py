"""The whole system under one seed: people who call commands, hosts that fail, servers that crash, time that jumps.

`simulate(seed)` plays one run in one thread on a fake clock and judges what is left by the invariants. The same seed
plays the same run, event by event. `python -m pileus.testing.simulation --seeds N` plays many.
"""

from pileus.testing.simulation.run import Outcome, simulate

__all__ = ["Outcome", "simulate"]
