"""What a management server is told before it can read its settings from the database: a TOML file.

`database` (URL), `state_dir`, `name`, and the tables `[api]` (address, port, drain_seconds), `[agents]` (address,
port, names), `[jobs]` (workers), `[metrics]` (peers) and `[log]` (level, format). docs/operating.md tells of each.
"""

import difflib
import socket
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any


class BadSettings(Exception):
    """The file cannot be used; the text names the entry."""


Network = IPv4Network | IPv6Network

LOOPBACK: tuple[Network, ...] = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("json", "text")


@dataclass(frozen=True)
class ServerSettings:
    """Everything a server needs to start. Port 0 takes any free one; `agent_names` go into its certificate.

    `name` is this server's in its farm; no other may have it.
    """

    database: str = field(repr=False)
    state_dir: Path
    name: str
    api_address: str = "127.0.0.1"
    api_port: int = 8080
    drain_seconds: int = 0
    """How long the API still answers once the server is told to stop and `/healthz` says so."""
    agent_address: str = "0.0.0.0"  # noqa: S104 (every peer is authenticated, and hosts are elsewhere)
    agent_port: int = 8250
    agent_names: tuple[str, ...] = ("localhost", "127.0.0.1")
    workers: int = 4
    metrics_peers: tuple[Network, ...] = LOOPBACK
    """Who may read `/metrics`: networks, none of them for nobody."""
    log_level: str = "info"
    log_format: str = "json"


MOST_WORKERS = 256
MOST_DRAIN_SECONDS = 600

_TYPE_NAMES: Mapping[type, str] = {str: "string", int: "whole number", list: "list"}

_TABLES: Mapping[str, Mapping[str, type]] = {
    "": {"database": str, "state_dir": str, "name": str},
    "api": {"address": str, "port": int, "drain_seconds": int},
    "agents": {"address": str, "port": int, "names": list},
    "jobs": {"workers": int},
    "metrics": {"peers": list},
    "log": {"level": str, "format": str},
}


def from_file(path: Path) -> ServerSettings:
    """Read and check a file. Raises `BadSettings`; unknown entries are refused, since they are usually misspelt."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from error
    try:
        return from_document(document)
    except BadSettings as error:
        raise BadSettings(f"{path}: {error}") from error


def from_document(document: Mapping[str, Any]) -> ServerSettings:
    """Check a parsed document. Raises `BadSettings`."""
    top = _checked("", {name: entry for name, entry in document.items() if name not in _TABLES})
    api, agents, jobs, metrics, log = (_checked(name, document.get(name, {})) for name in _TABLES if name)
    if "state_dir" not in top:
        raise BadSettings("state_dir: a directory is needed")
    state_dir = Path(top["state_dir"])
    names = agents.get("names", ["localhost", "127.0.0.1"])
    if not names or not all(isinstance(name, str) and name for name in names):
        raise BadSettings("agents.names: must be a list of names and addresses, at least one")
    workers = jobs.get("workers", 4)
    if not 1 <= workers <= MOST_WORKERS:
        raise BadSettings(f"jobs.workers: must lie between 1 and {MOST_WORKERS}")
    drain_seconds = api.get("drain_seconds", 0)
    if not 0 <= drain_seconds <= MOST_DRAIN_SECONDS:
        raise BadSettings(f"api.drain_seconds: must lie between 0 and {MOST_DRAIN_SECONDS}")
    return ServerSettings(
        database=top.get("database", f"sqlite:///{state_dir / 'pileus.db'}"),
        state_dir=state_dir,
        name=top.get("name", socket.gethostname()),
        api_address=api.get("address", "127.0.0.1"),
        api_port=_port(api.get("port", 8080), "api.port"),
        drain_seconds=drain_seconds,
        agent_address=agents.get("address", "0.0.0.0"),  # noqa: S104 (as above)
        agent_port=_port(agents.get("port", 8250), "agents.port"),
        agent_names=tuple(names),
        workers=workers,
        metrics_peers=_networks(metrics["peers"], "metrics.peers") if "peers" in metrics else LOOPBACK,
        log_level=_one_of(log.get("level", "info"), LOG_LEVELS, "log.level"),
        log_format=_one_of(log.get("format", "json"), LOG_FORMATS, "log.format"),
    )


def _checked(table: str, entries: Any) -> Mapping[str, Any]:
    """A table whose entries are known, of their types, and not empty."""
    if not isinstance(entries, Mapping):
        raise BadSettings(f"{table}: must be a table, [{table}]")
    known = _TABLES[table]
    for name, entry in entries.items():
        where = f"{table}.{name}" if table else name
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *(t for t in _TABLES if t and not table)], n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            raise BadSettings(f"{where}: unknown; {hint}")
        if not isinstance(entry, known[name]) or isinstance(entry, bool):
            raise BadSettings(f"{where}: must be a {_TYPE_NAMES[known[name]]}")
        if entry == "":
            raise BadSettings(f"{where}: must not be empty")
    return entries


def _networks(entries: list[Any], where: str) -> tuple[Network, ...]:
    found = []
    for entry in entries:
        try:
            # A number would be taken for an address.
            found.append(ip_network(entry if isinstance(entry, str) else ""))
        except ValueError:
            raise BadSettings(f"{where}: {entry!r} is no network; such as 10.0.0.0/24 or 2001:db8::/64") from None
    return tuple(found)


def _one_of(entry: str, known: Sequence[str], where: str) -> str:
    if entry not in known:
        raise BadSettings(f"{where}: must be one of {', '.join(known)}")
    return entry


def _port(number: int, where: str) -> int:
    if not 0 <= number <= 65535:
        raise BadSettings(f"{where}: must lie between 0 and 65535")
    return number
