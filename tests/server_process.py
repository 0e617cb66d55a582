"""A management server as a process of its own, on loopback, with ports it chooses itself."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PATIENCE_SECONDS = 60.0


def configured(directory: Path, extra: str = "") -> Path:
    """A server's file; everything it keeps lies below the directory."""
    path = directory / "server.toml"
    path.write_text(
        f'name = "s1"\nstate_dir = "{directory / "server"}"\n{extra}\n'
        '[api]\nport = 0\n[agents]\naddress = "127.0.0.1"\nport = 0\n'
    )
    return path


@dataclass(frozen=True)
class Running:
    """A server that is ready."""

    process: subprocess.Popen[str]
    directory: Path
    log: Path
    api_port: int
    agent_port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.api_port}/client/api"

    @property
    def password(self) -> str:
        return (self.directory / "server" / "admin-password").read_text().strip()

    def keys(self) -> tuple[str, str]:
        """API and secret key of the administrator, made by signing in."""
        with httpx.Client(trust_env=False, timeout=30) as http:
            login = {"command": "login", "username": "admin", "password": self.password, "response": "json"}
            opened = http.post(self.endpoint, data=login).json()["loginresponse"]
            asked = {"command": "registerUserKeys", "id": opened["userid"], "sessionkey": opened["sessionkey"]}
            made = http.post(self.endpoint, data={**asked, "response": "json"}).json()
        keys = made["registeruserkeysresponse"]["userkeys"]
        return keys["apikey"], keys["secretkey"]


@contextmanager
def running(directory: Path, config: Path | None = None) -> Iterator[Running]:
    """Start a server, wait until it says that it is ready, and stop it at the end."""
    log = directory / "server.log"
    with log.open("ab") as out:
        began = out.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "pileus.server", "--config", str(config or configured(directory))],
            stdout=out,
            stderr=out,
            text=True,
        )
    try:
        ready = _ready(process, log, began)
        api_port = int(ready["api"].rpartition(":")[2])
        yield Running(process, directory, log, api_port, int(ready["agents"]))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def refused_start(config: Path | str) -> tuple[int, str]:
    """Exit status and error text of a server that cannot start."""
    done = subprocess.run(
        [sys.executable, "-m", "pileus.server", "--config", str(config)], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


def listening(pid: int) -> set[tuple[str, int]]:
    """Address and port of every TCP and UDP socket on which a process can be reached, as the kernel knows them."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.match(r"socket:\[(\d+)\]", os.readlink(entry))
        except OSError:
            continue
        if found:
            inodes.add(found.group(1))
    open_to = set()
    for table, state in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == state and words[9] in inodes:
                address, _, port = words[1].partition(":")
                open_to.add((address, int(port, 16)))
    return open_to


LOOPBACK = "0100007F"
"""127.0.0.1 as the kernel's tables write it."""


def _ready(process: subprocess.Popen[str], log: Path, began: int) -> dict[str, str]:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        with log.open("rb") as file:
            file.seek(began)
            text = file.read().decode()
        for line in text.splitlines():
            if '"server ready"' in line:
                found: dict[str, str] = json.loads(line)
                return found
        if process.poll() is not None:
            raise AssertionError(f"the server ended: {text}")
        time.sleep(0.02)  # between looks; the deadline is above
    raise AssertionError(f"the server is not ready: {log.read_text()}")
