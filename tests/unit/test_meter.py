"""Counters and histograms: exact under threads, bounded whatever is counted."""

import threading
from collections.abc import Iterator

import pytest

from pileus.server import meter
from pileus.server.meter import Counter, Histogram


@pytest.fixture(autouse=True)
def _own_instruments(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(meter, "instruments", {})
    yield


def test_no_count_is_lost_between_threads() -> None:
    counted, timed = Counter("c", "", "what"), Histogram("h", "", bounds=(1, 2))

    def work() -> None:
        for _ in range(2000):
            counted.add("x")
            timed.observe(1.5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.value("x") == 16_000
    assert timed.count() == 16_000
    assert timed.series() == {(): ([0, 16_000, 0], 24_000)}


def test_an_observation_counts_in_the_first_bucket_that_holds_it() -> None:
    timed = Histogram("h", "", "k", bounds=(0.1, 1))
    for value in (0.0, 0.1, 0.11, 1.0, 7.0):
        timed.observe(value, "a")
    assert timed.series()[("a",)][0] == [2, 2, 1]
    assert timed.count("b") == 0


def test_label_sets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "MOST_SERIES", 3)
    counted, timed = Counter("c", "", "a", "b"), Histogram("h", "", "a")
    for number in range(10):
        counted.add(str(number), "x")
        timed.observe(1, str(number))
    assert counted.values() == {("0", "x"): 1, ("1", "x"): 1, ("2", "x"): 1, ("other", "other"): 7}
    assert timed.count("other") == 7
    counted.add("1", "x", by=2)
    assert counted.value("1", "x") == 3


def test_two_instruments_of_one_name_are_a_mistake() -> None:
    Counter("c", "")
    with pytest.raises(ValueError, match="c is there twice"):
        Histogram("c", "")
