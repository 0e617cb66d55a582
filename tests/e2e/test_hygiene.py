"""A run that is killed leaves no process, namespace, bridge or control group behind."""

import os
import subprocess
import sys
from pathlib import Path

import killed_run
import pytest
from cloud import eventually

from pileus import sandbox
from pileus.sandbox import processes
from pileus.sandbox.watchdog import MARK, Watchdog

pytestmark = pytest.mark.kvm


@pytest.mark.slow
def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    says = tmp_path / "says"
    log = tmp_path / "log"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'run'}"]
    with log.open("wb") as out:
        run = subprocess.Popen(
            [*command, str(Path(killed_run.__file__))],
            env={**os.environ, killed_run.SAY: str(says)},
            stdout=out,
            stderr=out,
        )

    def said() -> bool:
        assert run.poll() is None, log.read_text()
        return says.exists()

    try:
        eventually("the run has made one of everything", said)
        prefix, namespace, *numbers = says.read_text().split()
        living = {int(pid): processes.start_time(int(pid)) for pid in numbers}
        assert all(living.values())
        assert sandbox.leftovers(prefix)
        assert _network(namespace)
    finally:
        run.kill()
        run.wait(30)

    def gone() -> bool:
        alive = [pid for pid, started in living.items() if processes.alive(pid, started)]
        return not alive and not sandbox.leftovers(prefix) and not _network(namespace)

    eventually("nothing of the killed run is there", gone, seconds=60)


def test_a_run_that_ends_well_is_not_looked_after(tmp_path: Path) -> None:
    with Watchdog():
        mark = os.environ[MARK]
        left = subprocess.Popen(["sleep", "1000"])
    try:
        assert os.environ.get(MARK) != mark
        assert left.poll() is None
    finally:
        left.kill()
        left.wait()


def _network(name: str) -> list[Path]:
    return [*Path("/run/netns").glob(f"{name}-*"), *Path("/sys/class/net").glob(f"{name}-*")]
