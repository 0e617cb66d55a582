"""What is the same for thousands of hosts at once is told one by one a few times, then as a sum."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

ONE_BY_ONE = 20
WINDOW_SECONDS = 10.0


@dataclass
class _Window:
    """Since when one event is counted, how often it came, and for how many hosts it was not told."""

    since: float
    warns: bool
    told: int = 0
    untold: int = 0
    hosts: int = 0


class Chatter:
    """Of each event the first `most` in a window of `seconds` have a line in the log each, the others one line in all.

    Belongs to one event loop.
    """

    def __init__(
        self,
        log: FilteringBoundLogger,
        *,
        now: Callable[[], float] = time.monotonic,
        most: int = ONE_BY_ONE,
        seconds: float = WINDOW_SECONDS,
    ) -> None:
        self._log = log
        self._now = now
        self._most = most
        self._seconds = seconds
        self._windows: dict[str, _Window] = {}

    def info(self, event: str, *, hosts: int = 1, **facts: object) -> None:
        """Something ordinary, about so many hosts."""
        if self._counts(event, hosts, warns=False):
            self._log.info(event, hosts=hosts, **facts)

    def warning(self, event: str, **facts: object) -> None:
        """Something that somebody may have to look at."""
        if self._counts(event, 1, warns=True):
            self._log.warning(event, **facts)

    def sum_up(self, *, whole: bool = False) -> None:
        """Tell of what was not told, once its window is over; with `whole` at once."""
        now = self._now()
        for event, window in list(self._windows.items()):
            if whole or now - window.since >= self._seconds:
                self._end(event, window)

    def _counts(self, event: str, hosts: int, *, warns: bool) -> bool:
        now = self._now()
        window = self._windows.get(event)
        if window is not None and now - window.since >= self._seconds:
            self._end(event, window)
            window = None
        if window is None:
            window = self._windows[event] = _Window(now, warns)
        if window.told < self._most:
            window.told += 1
            return True
        window.untold += 1
        window.hosts += hosts
        return False

    def _end(self, event: str, window: _Window) -> None:
        del self._windows[event]
        if window.untold:
            tell = self._log.warning if window.warns else self._log.info
            tell(event, more=window.untold, hosts=window.hosts, seconds=round(self._now() - window.since, 1))
