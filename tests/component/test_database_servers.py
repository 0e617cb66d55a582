"""Private database servers end with whoever started them, however that comes about."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SECONDS = 60.0

_START = """
import sys
from pileus.testing import servers
server = getattr(servers, sys.argv[1])()
print(next(value for value in server.query.values()), flush=True)
sys.stdin.read()
"""


def processes_of(directory: Path) -> list[str]:
    """Command lines of living processes that name the directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("server", "ending"), [("postgresql", "killed"), ("mariadb", "killed"), ("postgresql", "ended")]
)
def test_nothing_is_left_of_a_server_when_its_test_run_is_over(server: str, ending: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _START, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdin is not None
        assert run.stdout is not None
        told = Path(run.stdout.readline().strip())
        directory = told if told.is_dir() else told.parent
        assert directory.name.startswith(f"pileus-{server}-")
        assert processes_of(directory) != []
        if ending == "killed":
            run.send_signal(signal.SIGKILL)
        else:
            run.stdin.close()
        run.wait(SECONDS)
    pause, until = threading.Event(), time.monotonic() + SECONDS
    while (directory.exists() or processes_of(directory)) and time.monotonic() < until:
        pause.wait(0.05)
    assert not directory.exists()
    assert processes_of(directory) == []
