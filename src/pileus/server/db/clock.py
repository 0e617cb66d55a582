"""Time as the server sees it. Tests put a clock of their own in its place."""

import time
from typing import Protocol


class Clock(Protocol):
    """Source of all times in the server."""

    def now(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1_000_000
