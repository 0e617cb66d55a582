"""Not a suite: the run that `test_hygiene` kills. It makes one of everything, says so, and waits for its end."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cloud import Cloud, eventually

from pileus.sandbox import SandboxHost, Switch
from pileus.sandbox.watchdog import Watchdog

SAY = "KILLED_RUN_SAYS"


@pytest.fixture
def namespace(watchdog: Watchdog) -> str:
    """A network namespace with a bridge outside, as router tests make them."""
    name = f"z{os.getpid()}"
    watchdog.network(f"{name}-*")
    subprocess.run(["ip", "netns", "add", f"{name}-ns"], check=True)
    subprocess.run(["ip", "link", "add", f"{name}-br", "type", "bridge"], check=True)
    return name


def test_that_never_ends(
    switch: Switch, make_host: Callable[[], SandboxHost], simulated_cloud: Cloud, namespace: str
) -> None:
    host = make_host()
    inside = host.popen(["sleep", "1000"], detach=True)
    outside = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    assert simulated_cloud.server is not None
    agents = [agent.pid for agent in simulated_cloud.agents.values()]
    sleeper = eventually("the program runs inside the host", lambda: inside.pid)
    pids = [sleeper, outside.pid, simulated_cloud.server.pid, *agents]
    half = Path(os.environ[SAY] + ".half")
    half.write_text(" ".join([switch.prefix, namespace, *map(str, pids)]))
    half.rename(os.environ[SAY])
    signal.pause()
