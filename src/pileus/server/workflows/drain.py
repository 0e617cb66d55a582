"""Taking everything of a sort away from an owner that goes: a child job for each thing, some at a time.

A thing that could not be taken away is the error of the parent's step; the others are gone all the same, and the next
job goes on with what is left.
"""

from collections.abc import Callable, Sequence

from pileus.server.jobs.children import children_settled, result_of
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.submit import JobRef

AT_A_TIME = 20
"""How many children run at the same time."""

CLEAN_UP_SECONDS = 24 * 3600.0
"""How long a clean-up may take; each child has an hour."""

CHILD_SECONDS = 3600.0


def drain(ctx: StepContext, left: Sequence[int], begin: Callable[[int], JobRef]) -> None:
    """Nap until nothing is left, or raise the error of what could not be taken away.

    `left` are the things that are still there, read in this call; `begin` starts the child that takes one away, or
    finds it. What a child took away is in no later `left`, so what is left once all have ended has failed.
    """
    children_settled(ctx)
    jobs = [begin(one) for one in left[:AT_A_TIME]]
    children_settled(ctx)
    for job in jobs:
        result_of(ctx, job.id)
