"""Counters and histograms of this process: what happened, how often, how long it took. The floor of the house.

Any room may count; whoever shows the numbers (`server/exposition`) finds every instrument in `instruments`. Counting
is an addition under a lock. Labels are names that the code knows (commands, steps, states): never ids, never what
people chose. Should a label set grow all the same, what is new from `MOST_SERIES` on counts as "other".
"""

import threading
from bisect import bisect_left
from collections.abc import KeysView, Sequence
from time import perf_counter

MOST_SERIES = 2000

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of what is over in moments: calls, steps, transactions."""
LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Upper bounds of what may take minutes: a host at work."""

seconds = perf_counter
"""The clock for durations."""


class Counter:
    """A number that only grows, one for each set of label values."""

    def __init__(self, name: str, text: str, *labels: str) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self._lock = threading.Lock()
        self._values: dict[tuple[str, ...], float] = {}
        _register(self)

    def add(self, *labels: str, by: float = 1) -> None:
        """Count one more, or `by` more, under these label values."""
        with self._lock:
            key = _bounded(self._values.keys(), labels)
            self._values[key] = self._values.get(key, 0) + by

    def value(self, *labels: str) -> float:
        """The count under these label values."""
        with self._lock:
            return self._values.get(labels, 0)

    def values(self) -> dict[tuple[str, ...], float]:
        """All counts by label values, as they are now."""
        with self._lock:
            return dict(self._values)


class Histogram:
    """How many observations fell below each of `bounds`, their number and sum, for each set of label values."""

    def __init__(self, name: str, text: str, *labels: str, bounds: Sequence[float] = SECONDS) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self.bounds = tuple(bounds)
        self._lock = threading.Lock()
        self._series: dict[tuple[str, ...], list[float]] = {}
        _register(self)

    def observe(self, value: float, *labels: str) -> None:
        """Note one observation."""
        place = bisect_left(self.bounds, value)
        with self._lock:
            key = _bounded(self._series.keys(), labels)
            series = self._series.get(key)
            if series is None:
                series = self._series[key] = [0.0] * (len(self.bounds) + 2)
            series[place] += 1
            series[-1] += value

    def count(self, *labels: str) -> int:
        """How many observations there were under these label values."""
        with self._lock:
            return int(sum(self._series.get(labels, [0.0])[:-1]))

    def series(self) -> dict[tuple[str, ...], tuple[list[float], float]]:
        """By label values: observations per bucket (not cumulative, the last has no bound), and their sum."""
        with self._lock:
            return {labels: (series[:-1], series[-1]) for labels, series in self._series.items()}


Instrument = Counter | Histogram

instruments: dict[str, Instrument] = {}
"""Every instrument of the process by name."""


def _register(instrument: Instrument) -> None:
    if instrument.name in instruments:
        raise ValueError(f"{instrument.name} is there twice")
    instruments[instrument.name] = instrument


def _bounded(known: KeysView[tuple[str, ...]], labels: tuple[str, ...]) -> tuple[str, ...]:
    if labels in known or len(known) < MOST_SERIES:
        return labels
    return ("other",) * len(labels)
