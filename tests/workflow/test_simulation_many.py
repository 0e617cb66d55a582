"""Many seeds are played to the last, whatever one of them does."""

import os
import signal
import threading

import pytest

from pileus.testing.simulation import many
from pileus.testing.simulation.__main__ import main
from pileus.testing.simulation.run import Outcome


def _sound(seed: int, *, acts: int | None) -> Outcome:
    return Outcome(seed, (), f"digest {acts}", ("a line",))


def test_every_seed_is_played_once_and_a_sound_one_keeps_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "simulate", _sound)
    found = sorted(many.play_many(range(10, 21), acts=3, processes=2), key=lambda outcome: outcome.seed)
    assert found == [Outcome(seed, (), "digest 3", ()) for seed in range(10, 21)]


def test_a_seed_that_raises_or_takes_its_process_along_is_told_and_the_rest_is_played(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def play(seed: int, *, acts: int | None) -> Outcome:
        match seed:
            case 1:
                raise LookupError("no such thing")
            case 2:
                os.kill(os.getpid(), signal.SIGKILL)
            case 3:
                os._exit(7)
        return _sound(seed, acts=acts)

    monkeypatch.setattr(many, "simulate", play)
    found = {outcome.seed: outcome for outcome in many.play_many(range(6), processes=2)}
    assert sorted(found) == list(range(6))
    assert {seed for seed, outcome in found.items() if outcome.ok} == {0, 4, 5}
    assert "LookupError: no such thing" in found[1].wrong[0]
    assert found[2].wrong == ("the process that played it ended: SIGKILL",)
    assert found[3].wrong == ("the process that played it ended: exit status 7",)


def test_a_seed_that_is_never_over_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(seed: int, *, acts: int | None) -> Outcome:
        threading.Event().wait()
        return _sound(seed, acts=acts)

    monkeypatch.setattr(many, "simulate", play)
    monkeypatch.setattr(many, "PATIENCE_SECONDS", 0.0)
    (outcome,) = many.play_many([5])
    assert not outcome.ok
    assert "not over" in outcome.wrong[0]


def test_the_last_line_tells_seeds_broken_ones_and_what_they_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def play(seed: int, *, acts: int | None) -> Outcome:
        return Outcome(seed, ("one_life: two of them",) if seed == 8 else (), "", ())

    monkeypatch.setattr(many, "simulate", play)
    assert main(["--seeds", "3", "--from", "7", "--acts", "4"]) == 1
    told = capsys.readouterr().out
    assert "again with: python -m pileus.testing.simulation --show 8 --acts 4\n  one_life: two of them" in told
    last = told.splitlines()[-1]
    assert last.startswith("3 seeds from 7, 1 broke: 8; ")
    assert "s of processor time a seed" in last
    assert main(["--seeds", "1", "--from", "9"]) == 0
