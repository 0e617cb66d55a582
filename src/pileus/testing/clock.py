"""A clock that stands still until a test moves it."""

import threading

START_MS = 1_900_000_000_000
"""2030-03-17 17:46:40 UTC: no test depends on today."""


class FakeClock:
    """Time for servers under test, in milliseconds since the epoch. Any thread may read or move it."""

    def __init__(self, start_ms: int = START_MS) -> None:
        self._now = start_ms
        self._lock = threading.Lock()

    def now(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        with self._lock:
            return self._now

    def advance(self, seconds: float) -> int:
        """Let time pass; returns the new time. Raises ValueError for a negative duration."""
        if seconds < 0:
            raise ValueError("time does not go back")
        with self._lock:
            self._now += round(seconds * 1000)
            return self._now

    def reach(self, at_ms: int) -> int:
        """Let time pass until an instant, unless it is past already; returns the new time."""
        with self._lock:
            self._now = max(self._now, at_ms)
            return self._now
