"""kill -9 of a random server of a farm, again and again while guests are deployed: nothing is stuck, lost or leaked."""

from pathlib import Path

from pileus.testing.killrun import run


def test_a_farm_whose_servers_are_killed_loses_nothing(tmp_path: Path) -> None:
    verdict = run(tmp_path, "postgresql", deploys=40, seconds=1.0, kills=4)
    print(verdict.line())  # The seed among it.
    assert (verdict.stuck, verdict.lost, verdict.leaked) == (0, [], []), verdict.line()
    assert verdict.running + verdict.failed == verdict.deploys
    assert verdict.running > 0
    assert verdict.kills == 4
