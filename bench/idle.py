"""A server that nobody calls: how soon it is ready, how much memory it holds, how much processor time it takes.

On SQLite and PostgreSQL: the first start on an empty database and restarts on it, from the start of the process to a
good /healthz, each a process of its own with compiled modules; then resident memory after ten seconds of idling, and
processor time in a window behind that. Last line: the whole, as one JSON object.
"""

import compileall
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pileus
from pileus.testing.database import blank_database, using

RESTARTS = 5
IDLE_SECONDS = 10.0
WINDOW_SECONDS = 20.0
GOAL_READY_SECONDS = 2.0
GOAL_MB = 120.0
GOAL_IDLE_PERCENT = 2.0
PATIENCE_SECONDS = 60.0
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure both kinds; the last line is the whole."""
    # As an installed server has them: compiled once, not at each start.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    compileall.compile_dir(Path(pileus.__file__).parent, quiet=2)
    claims = [claim for kind in ("sqlite", "postgresql") for claim in _measured(kind)]
    for claim in claims:
        print(json.dumps(claim))
    resident = [claim["value"] for claim in claims if str(claim["name"]).endswith("_resident")]
    whole = _claim("idle", max(map(float, resident)), "MB", GOAL_MB)
    whole["ok"] = all(claim["ok"] for claim in claims if claim["ok"] is not None)
    print(json.dumps(whole))
    return 0 if whole["ok"] else 1


def _measured(kind: str) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="pileus-bench-") as folder, using(kind):
        directory = Path(folder)
        with blank_database(directory) as url:
            config, port = _configured(directory, url)
            with _running(config, port) as first:
                pass
            starts = []
            for _ in range(RESTARTS):
                with _running(config, port) as again:
                    starts.append(again)
            with _running(config, port) as server:
                time.sleep(IDLE_SECONDS)
                resident = _resident_mb(server.pid)
                began, used = time.monotonic(), _processor_seconds(server.pid)
                time.sleep(WINDOW_SECONDS)
                idle = 100 * (_processor_seconds(server.pid) - used) / (time.monotonic() - began)
    load = os.getloadavg()[0]
    print(f"{kind}: load {load:.1f}, starts {[round(each.seconds, 2) for each in starts]}", file=sys.stderr)
    return [
        _claim(f"{kind}_first_ready", first.seconds, "s", GOAL_READY_SECONDS),
        _claim(f"{kind}_first_processor", first.processor, "s"),
        _claim(f"{kind}_restart_ready", statistics.median(each.seconds for each in starts), "s", GOAL_READY_SECONDS),
        _claim(f"{kind}_restart_processor", statistics.median(each.processor for each in starts), "s"),
        _claim(f"{kind}_resident", resident, "MB", GOAL_MB),
        _claim(f"{kind}_idle", idle, "%", GOAL_IDLE_PERCENT),
    ]


class Started:
    """A server that answered: after how many seconds, and how much processor time until then."""

    def __init__(self, pid: int, seconds: float) -> None:
        self.pid = pid
        self.seconds = seconds
        self.processor = _processor_seconds(pid)


@contextlib.contextmanager
def _running(config: Path, port: int) -> Iterator[Started]:
    log = config.with_suffix(".log")
    with log.open("ab") as out:
        began = time.monotonic()
        process = subprocess.Popen([sys.executable, "-m", "pileus.server", "--config", config], stdout=out, stderr=out)
    try:
        while not _well(port):
            if process.poll() is not None or time.monotonic() - began > PATIENCE_SECONDS:
                raise RuntimeError(f"the server did not start:\n{log.read_text()}")
            time.sleep(0.01)
        yield Started(process.pid, time.monotonic() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def _configured(directory: Path, url: str) -> tuple[Path, int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = directory / "server.toml"
    config.write_text(
        f'name = "s1"\nstate_dir = "{directory / "server"}"\ndatabase = "{url}"\n'
        f'[api]\nport = {port}\n[agents]\naddress = "127.0.0.1"\nport = 0\n'
    )
    return config, port


def _well(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the kernel does not tell")


def _claim(name: str, value: float, unit: str, goal: float | None = None) -> dict[str, object]:
    ok = None if goal is None else value <= goal
    return {"name": name, "value": round(value, 2), "unit": unit, "goal": goal, "ok": ok}


if __name__ == "__main__":
    sys.exit(main())
