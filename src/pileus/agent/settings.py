"""What an agent is told: a TOML file or the command line, checked before anything is done."""

import ipaddress
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pileus.agent.enrolment import Endpoint, Token, parse_endpoint, parse_token
from pileus.wire.messages import HostKind

FLEET_SIDE_BY_SIDE = 10_000
"""Simulated operations mostly wait for the clock."""


class BadSettings(Exception):
    """The configuration cannot be used; the text names the entry."""


@dataclass(frozen=True)
class HostEntry:
    """One host of this agent. `backend` is an entry point: of backends for Routing, of stores for storage hosts."""

    token: Token
    kind: HostKind
    backend: str
    address: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FleetEntry:
    """A fleet of simulated hosts in this agent; `options` are read by the simulator."""

    token: Token
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AgentSettings:
    """Everything an agent needs. `side_by_side` bounds the operations that run at one time."""

    servers: tuple[Endpoint, ...]
    state_dir: Path
    hosts: tuple[HostEntry, ...]
    side_by_side: int = 16
    fleet: FleetEntry | None = None


def from_file(path: Path) -> AgentSettings:
    """Read a TOML file. Raises `BadSettings`.

    Top level: `servers` (list of HOST:PORT), `state_dir`, `side_by_side`, and `[[host]]` tables with `token` or
    `token_file`, `kind` (Routing or SecondaryStorage), `backend`, `address` and `[host.options]`. A `[fleet]` table
    with `token` or `token_file` and `[fleet.options]` makes the agent hold simulated hosts too.
    """
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise BadSettings(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSettings(f"{path}: {error}") from error
    return from_document(document)


def from_document(document: Mapping[str, Any]) -> AgentSettings:
    """Check a parsed document. Raises `BadSettings`; unknown entries are refused, since they are usually misspelt."""
    _known(document, {"servers", "state_dir", "side_by_side", "host", "fleet"}, "")
    fleet = _fleet(document["fleet"]) if "fleet" in document else None
    servers = document.get("servers", [])
    hosts = document.get("host", [])
    if not isinstance(servers, list) or not servers:
        raise BadSettings("servers: a list of at least one HOST:PORT is needed")
    if not isinstance(hosts, list) or not all(isinstance(host, dict) for host in hosts):
        raise BadSettings("host: [[host]] tables are needed")
    if not hosts and fleet is None:
        raise BadSettings("host: at least one [[host]] is needed, or a [fleet]")
    side_by_side = document.get("side_by_side", 16 if fleet is None else FLEET_SIDE_BY_SIDE)
    if not isinstance(side_by_side, int) or isinstance(side_by_side, bool) or side_by_side < 1:
        raise BadSettings("side_by_side: a positive number is needed")
    state_dir = _text(document, "state_dir", "")
    if not state_dir:
        raise BadSettings("state_dir: a directory is needed")
    entries = tuple(_host(host, number) for number, host in enumerate(hosts, 1))
    secrets = [entry.token.secret for entry in entries] + ([] if fleet is None else [fleet.token.secret])
    if len(set(secrets)) != len(secrets):
        raise BadSettings("host: two hosts have the same token")
    return AgentSettings(tuple(_server(server) for server in servers), Path(state_dir), entries, side_by_side, fleet)


def _fleet(table: object) -> FleetEntry:
    if not isinstance(table, dict):
        raise BadSettings("fleet: a table is needed")
    where = "fleet: "
    _known(table, {"token", "token_file", "options"}, where)
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise BadSettings(f"{where}options: a table is needed")
    return FleetEntry(_token(table, where), options)


def _host(table: Mapping[str, Any], number: int) -> HostEntry:
    where = f"host {number}: "
    _known(table, {"token", "token_file", "kind", "backend", "address", "options"}, where)
    try:
        kind = HostKind(_text(table, "kind", where, default=HostKind.ROUTING))
    except ValueError as error:
        raise BadSettings(f"{where}kind: Routing or SecondaryStorage") from error
    address = _text(table, "address", where, default="127.0.0.1")
    if not _is_address(address):
        raise BadSettings(f"{where}address: {address} is no IP address")
    backend = _text(table, "backend", where)
    if not backend:
        raise BadSettings(f"{where}backend: a name is needed")
    options = table.get("options", {})
    if not isinstance(options, dict):
        raise BadSettings(f"{where}options: a table is needed")
    return HostEntry(_token(table, where), kind, backend, address, options)


def _token(table: Mapping[str, Any], where: str) -> Token:
    if ("token" in table) == ("token_file" in table):
        raise BadSettings(f"{where}one of token and token_file is needed")
    text = _text(table, "token", where)
    if "token_file" in table:
        path = Path(_text(table, "token_file", where))
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise BadSettings(f"{where}token_file: {path} cannot be read") from error
    try:
        return parse_token(text)
    except ValueError as error:
        raise BadSettings(f"{where}token: {error}") from error


def _server(text: object) -> Endpoint:
    try:
        return parse_endpoint(str(text))
    except ValueError as error:
        raise BadSettings(f"servers: {error}") from error


def _known(table: Mapping[str, Any], names: set[str], where: str) -> None:
    unknown = sorted(set(table) - names)
    if unknown:
        raise BadSettings(f"{where}unknown {', '.join(unknown)}; known are {', '.join(sorted(names))}")


def _text(table: Mapping[str, Any], name: str, where: str, *, default: str = "") -> str:
    value = table.get(name, default)
    if not isinstance(value, str):
        raise BadSettings(f"{where}{name}: a text is needed")
    return value


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def options_from_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """`name=value` pairs of the command line; a value is read as TOML if it can be, else taken as text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not name or not separator:
            raise BadSettings(f"option {pair}: NAME=VALUE is needed")
        try:
            options[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[name] = value
    return options
