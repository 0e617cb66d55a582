"""One call of a step or undo: the `StepContext` the engine makes for it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pileus.server.db.transaction import Tx
from pileus.server.domain.job import Phase
from pileus.server.jobs.hold import Held


class Call:
    """See `StepContext`. `result` collects the facts of the job so far."""

    def __init__(self, tx: Tx, held: Held) -> None:
        self.tx = tx
        self.held = held
        self.job_id = held.id
        self.job_uuid = held.uuid
        self.account_id = held.account_id
        self.domain_id = held.domain_id
        self.user_id = held.user_id
        self.start_event_id = held.start_event_id
        self.round = held.round
        self.attempt = held.attempts
        self.avoid: Mapping[str, str] = MappingProxyType(held.avoid)
        self.undoing = held.phase is not Phase.FORWARD
        self.deadline_at = held.deadline_at
        self.result = dict(held.result)

    def operation_id(self, label: str = "") -> str:
        """`uuid.step.round.direction[.label]`, at most 80 characters for labels up to 30."""
        direction = "u" if self.undoing else "d"
        name = f"{self.job_uuid}.{self.held.position}.{self.round}.{direction}"
        return f"{name}.{label}" if label else name

    def until(self, at_ms: int) -> float:
        """Seconds from now until an instant, at least 0."""
        return max(0.0, (at_ms - self.tx.now) / 1000)

    def set_result(self, **facts: Any) -> None:
        """Add facts to the job's result."""
        self.result.update(facts)
