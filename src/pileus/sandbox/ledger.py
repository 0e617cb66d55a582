"""What each sandbox made, written down under /run before it is made, so that another process can take it away.

One directory per prefix with one JSON file per thing. Files are replaced atomically; machine-wide decisions (subnets,
IP forwarding) are taken under one lock.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pileus.sandbox.commands import SandboxError

ROOT = Path("/run/pileus-sandbox")


@dataclass(frozen=True)
class SwitchRecord:
    """A switch: its subnet in CIDR notation, and whether the root namespace is joined to it and translates for it."""

    subnet: str
    root: bool = False
    nat: bool = False


@dataclass(frozen=True)
class HostRecord:
    """A host: `pid` is its first process, `shell_pid` the one that made the namespaces; 0 while it is being started."""

    number: int
    address: str
    directory: str
    pid: int = 0
    started: int = 0
    shell_pid: int = 0
    shell_started: int = 0


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the lock of all sandboxes of this machine."""
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (ROOT / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prefixes() -> list[str]:
    """Prefixes of all sandboxes on this machine."""
    return sorted(path.name for path in ROOT.glob("*") if path.is_dir())


def claim(prefix: str) -> None:
    """Take a prefix; SandboxError when another sandbox has it."""
    ROOT.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        (ROOT / prefix).mkdir(mode=0o700)
    except FileExistsError as error:
        raise SandboxError(f"a sandbox named {prefix} is there already (or was left by a crash: sweep it)") from error


def release(prefix: str) -> None:
    """Forget everything about a sandbox."""
    shutil.rmtree(ROOT / prefix, ignore_errors=True)


def write_switch(prefix: str, record: SwitchRecord) -> None:
    _write(ROOT / prefix / "switch.json", asdict(record))


def read_switch(prefix: str) -> SwitchRecord | None:
    """The record of the switch, or None."""
    found = _read(ROOT / prefix / "switch.json")
    if found is None:
        return None
    return SwitchRecord(subnet=str(found["subnet"]), root=bool(found["root"]), nat=bool(found["nat"]))


def write_host(prefix: str, name: str, record: HostRecord) -> None:
    _write(ROOT / prefix / f"host-{name}.json", asdict(record))


def read_host(prefix: str, name: str) -> HostRecord | None:
    """The record of one host, or None."""
    found = _read(ROOT / prefix / f"host-{name}.json")
    if found is None:
        return None
    return HostRecord(
        number=int(str(found["number"])),
        address=str(found["address"]),
        directory=str(found["directory"]),
        pid=int(str(found["pid"])),
        started=int(str(found["started"])),
        shell_pid=int(str(found["shell_pid"])),
        shell_started=int(str(found["shell_started"])),
    )


def forget_host(prefix: str, name: str) -> None:
    (ROOT / prefix / f"host-{name}.json").unlink(missing_ok=True)


def hosts(prefix: str) -> list[str]:
    """Names of the hosts of a sandbox."""
    return sorted(path.stem.removeprefix("host-") for path in (ROOT / prefix).glob("host-*.json"))


def _write(path: Path, record: dict[str, object]) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(record))
    fresh.replace(path)


def _read(path: Path) -> dict[str, object] | None:
    try:
        loaded: dict[str, object] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return loaded


def read_forwarding() -> str | None:
    """What IPv4 forwarding was before the first sandbox turned it on, or None."""
    path = ROOT / "ip_forward"
    return path.read_text() if path.exists() else None


def write_forwarding(before: str | None) -> None:
    path = ROOT / "ip_forward"
    if before is None:
        path.unlink(missing_ok=True)
    else:
        path.write_text(before)
        os.chmod(path, 0o600)
