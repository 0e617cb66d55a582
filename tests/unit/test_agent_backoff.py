"""How long agents wait: spread over the whole interval, doubled up to a minute, short while nobody is there."""

import itertools

from pileus.agent.backoff import Backoff

FIRST = 0.5


def highest(low: float, high: float) -> float:
    assert low == 0  # Full jitter: from nothing to the whole interval.
    return high


def test_pauses_double_up_to_a_minute_and_begin_anew_after_a_line() -> None:
    backoff = Backoff(FIRST, dice=highest)
    pauses = [backoff.failed() for _ in range(30)]
    assert pauses[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert set(pauses[8:]) == {60.0}
    backoff.welcomed()
    assert backoff.failed() == 0.5


def test_while_nobody_is_there_pauses_stay_short_and_cost_no_patience() -> None:
    backoff = Backoff(FIRST, dice=highest)
    assert [backoff.absent() for _ in range(8)] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.0, 3.0]
    assert backoff.absences == 8
    assert backoff.failed() == 0.5
    assert backoff.absences == 0


def test_a_thousand_agents_that_lost_their_server_come_back_spread_over_the_interval() -> None:
    agents = [Backoff(FIRST) for _ in range(1000)]
    for _ in range(6):
        for agent in agents:
            agent.failed()
    pauses = sorted(agent.failed() for agent in agents)
    assert pauses[0] >= 0
    assert pauses[-1] <= 32.0
    # Each eighth of the interval has its share: 125 are expected, and 60 are six standard deviations fewer.
    counted = [len(list(each)) for _, each in itertools.groupby(pauses, key=lambda pause: int(pause / 4))]
    assert len(counted) == 8
    assert min(counted) > 60
