"""Jobs: their public status and inner phase."""

from enum import IntEnum, StrEnum

from pileus.server.domain.transitions import Transitions


class JobStatus(IntEnum):
    """Wire values of `jobstatus`."""

    PENDING = 0
    SUCCEEDED = 1
    FAILED = 2


class Phase(StrEnum):
    """Where a saga is."""

    QUEUED = "queued"
    """Another job holds its resource key."""
    FORWARD = "forward"
    REWIND = "rewind"
    """One block is being undone, to try elsewhere."""
    UNWIND = "unwind"
    """Everything is being undone; the job will fail."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STUCK = "stuck"
    """An undo keeps failing; an alert stands, and a person may `retry`."""


PHASE = Transitions[Phase](
    {
        Phase.QUEUED: (Phase.FORWARD, Phase.UNWIND),
        Phase.FORWARD: (Phase.SUCCEEDED, Phase.REWIND, Phase.UNWIND),
        Phase.REWIND: (Phase.FORWARD, Phase.UNWIND, Phase.STUCK),
        Phase.UNWIND: (Phase.FAILED, Phase.STUCK),
        Phase.STUCK: (Phase.UNWIND,),
        Phase.SUCCEEDED: (),
        Phase.FAILED: (),
    }
)
