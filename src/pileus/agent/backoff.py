"""How long an agent waits before its next attempt: full jitter, so that a farm of agents comes back spread out."""

import secrets
from collections.abc import Callable

LONGEST_SECONDS = 60.0
ABSENT_SECONDS = 3.0
"""The longest pause while servers refuse connections, because they are not running."""
MOST_DOUBLINGS = 16


class Backoff:
    """Pauses between attempts. `dice` gives a number from one bound to another, in seconds."""

    def __init__(
        self, first_seconds: float, *, dice: Callable[[float, float], float] = secrets.SystemRandom().uniform
    ) -> None:
        self._first_seconds = first_seconds
        self._dice = dice
        self._failures = 0
        self.absences = 0
        """How often in a row nobody was there."""

    def welcomed(self) -> None:
        """There was a line: what comes next is a first attempt again."""
        self._failures = self.absences = 0

    def absent(self) -> float:
        """Nobody listens there. Asking costs nobody anything, and hosts without a server stand idle: ask again soon."""
        self.absences += 1
        return self._dice(0, min(ABSENT_SECONDS, self._first_seconds * self.absences))

    def failed(self) -> float:
        """Somebody was there and it came to nothing, or the line has ended: wait longer each time, up to a minute."""
        self.absences = 0
        longest = min(LONGEST_SECONDS, self._first_seconds * 2**self._failures)
        self._failures = min(self._failures + 1, MOST_DOUBLINGS)
        return self._dice(0, longest)
