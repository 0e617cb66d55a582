"""What a step sees: its transaction, its job, and the ways to wait. The engine makes one for every call of a step."""

from collections.abc import Mapping
from typing import Any, Protocol

from pileus.server.db.transaction import Tx


class Signal(Exception):
    """Base of what a step may raise to steer its job."""


class Nap(Signal):
    """Commit what was done, call the same step again after `seconds`, or earlier when `topic` is woken.

    Without `seconds` only the topic (or the job's deadline) wakes it. A napping job costs one row and no thread.
    """

    def __init__(self, seconds: float | None = None, *, topic: str = "") -> None:
        super().__init__(topic)
        self.seconds = seconds
        self.topic = topic


class TryElsewhere(Signal):
    """Roll back, undo the block, remember `key` with `reason` in the job's avoid-set, and try another round."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key
        self.reason = reason


class StepContext(Protocol):
    """Given to every step and undo.

    A `PileusError` raised by a step unwinds the job and becomes its error. Any other exception is retried with
    backoff a few times and then unwinds the job with an internal error. Exceptions of an undo are retried with
    backoff until the job is `stuck` and an alert stands.
    """

    tx: Tx
    job_id: int
    job_uuid: str
    account_id: int
    domain_id: int
    user_id: int
    start_event_id: int | None
    """The event that announced the job, when there is one: `start_id` of those that follow."""

    round: int
    """0 for the first try of a block, then 1, 2, …: part of names that must differ between rounds."""

    attempt: int
    """How often this step or undo has failed and is tried again; 0 at first. Naps do not reset it."""

    avoid: Mapping[str, str]
    """Places already tried, with the reason each gave ("host:7" → "no room: …")."""

    undoing: bool

    deadline_at: int
    """When the job's time runs out, in milliseconds since the epoch."""

    def operation_id(self, label: str = "") -> str:
        """A name for an operation of this step: the same on every call of the step in this round and direction."""

    def until(self, at_ms: int) -> float:
        """Seconds from now until an instant, at least 0."""

    def set_result(self, **facts: Any) -> None:
        """Add facts to the job's result (for instance a password to show once)."""
