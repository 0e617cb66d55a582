"""The agent program: puts hosts, journal and connection together, and ends gracefully on SIGTERM.

Guests run on when the agent ends, however it ends.
"""

import argparse
import asyncio
import contextlib
import importlib.metadata
import logging
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog

from pileus import __version__
from pileus.agent.backend import Backend, HostSettings, ImageStore
from pileus.agent.backends.simulator.fleet import simulated_fleet
from pileus.agent.connection import Connection, TurnedAway
from pileus.agent.enrolment import EnrolmentRefused, ServerUnreachable, Token, enrol
from pileus.agent.host import Fleet, Host, RoutingHost, StorageHost
from pileus.agent.identity import EnrolledHost, Identity, StateDirBusy
from pileus.agent.journal import Journal, JournalUnusable
from pileus.agent.renewal import Renewal
from pileus.agent.settings import (
    AgentSettings,
    BadSettings,
    FleetEntry,
    HostEntry,
    from_document,
    from_file,
    options_from_pairs,
)
from pileus.wire.messages import HostKind
from pileus.wire.operations import Refused

log = structlog.get_logger(__name__)

BACKENDS = "pileus.agent.backends"
STORES = "pileus.agent.stores"
ENROL_AGAIN_SECONDS = 10.0


class HostUnusable(Exception):
    """The hypervisor or store of a host cannot be opened; the text names both host and cause."""


FAULTS = (BadSettings, EnrolmentRefused, StateDirBusy, JournalUnusable, HostUnusable, TurnedAway)
"""What ends an agent for good: a person has to change something."""


async def run(settings: AgentSettings, *, stop: asyncio.Event | None = None) -> None:
    """Enrol what is new, then serve until `stop` is set or SIGTERM or SIGINT arrives. Raises one of `FAULTS`."""
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(RuntimeError):  # Not the main thread: whoever runs us there sets `stop`.
            loop.add_signal_handler(number, stop.set)
    identity = Identity(settings.state_dir)
    with identity.locked():
        enrolled = await _enrol_all(identity, settings, stop)
        if enrolled is None:
            return
        # Guests of a fleet end with this process, so a journal that survived it would tell of what is not there.
        alone = settings.fleet is not None and not settings.hosts
        journal = Journal.in_memory() if alone else Journal(settings.state_dir / "journal.db")
        try:
            fleet = None if settings.fleet is None else _fleet(settings.fleet, journal)
            await _serve(settings, identity, enrolled, journal, fleet, stop)
        finally:
            journal.close()
    log.info("agent.ended")


async def _serve(
    settings: AgentSettings,
    identity: Identity,
    enrolled: Sequence[tuple[EnrolledHost, HostEntry]],
    journal: Journal,
    fleet: Fleet | None,
    stop: asyncio.Event,
) -> None:
    hosts = {who.uuid: _host(identity, who, entry, journal) for who, entry in enrolled}
    connection = Connection(
        servers=settings.servers,
        identity=identity,
        hosts=hosts,
        journal=journal,
        version=__version__,
        fleet=fleet,
        side_by_side=settings.side_by_side,
    )
    async with contextlib.AsyncExitStack() as opened:
        for uuid, host in hosts.items():
            try:
                await host.open(connection.noticed(uuid))
            except (Refused, OSError) as error:
                raise HostUnusable(f"host {uuid}: {error}") from error
            opened.push_async_callback(host.close)
        renewing = asyncio.create_task(Renewal(identity, settings.servers).run(connection.renewed))
        try:
            await connection.run(stop)
        finally:
            renewing.cancel()
            for ended in await asyncio.gather(renewing, return_exceptions=True):
                if isinstance(ended, Exception):
                    log.error("certificate.renewal_ended", exc_info=ended)


async def _enrol_all(
    identity: Identity, settings: AgentSettings, stop: asyncio.Event
) -> list[tuple[EnrolledHost, HostEntry]] | None:
    """Every configured host with its identity; None when told to stop before that."""
    enrolled: list[tuple[EnrolledHost, HostEntry]] = []
    if settings.fleet is not None:
        who = await _enrolled(identity, settings, settings.fleet.token, "", stop)
        if who is None:
            return None
        if not who.fleet:
            raise BadSettings("fleet: the token is one of a host; addFleet takes one for a fleet")
    for entry in settings.hosts:
        who = await _enrolled(identity, settings, entry.token, entry.address, stop)
        if who is None:
            return None
        if who.fleet:
            raise BadSettings("host: the token is one of a fleet; it belongs into [fleet]")
        if who.kind is not entry.kind:
            raise BadSettings(f"host {who.uuid} was added as {who.kind}, configured as {entry.kind}")
        enrolled.append((who, entry))
    return enrolled


async def _enrolled(
    identity: Identity, settings: AgentSettings, token: Token, address: str, stop: asyncio.Event
) -> EnrolledHost | None:
    """Who the token makes us, now or before; None when told to stop before that."""
    who = identity.host_of(token.secret)
    while who is None:
        server = settings.servers[secrets.randbelow(len(settings.servers))]
        try:
            who = await enrol(identity, server, token, address=address)
            log.info("host.enrolled", host=who.uuid, kind=who.kind, fleet=who.fleet)
        except ServerUnreachable as error:
            log.warning("enrolment.unanswered", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), secrets.SystemRandom().uniform(0.2, ENROL_AGAIN_SECONDS))
            if stop.is_set():
                return None
    return who


def _fleet(entry: FleetEntry, journal: Journal) -> Fleet:
    try:
        return simulated_fleet(journal, entry.options)
    except ValueError as error:
        raise BadSettings(f"fleet: {error}") from error


def _host(identity: Identity, who: EnrolledHost, entry: HostEntry, journal: Journal) -> Host:
    settings = HostSettings(
        host_uuid=who.uuid,
        state_dir=str(identity.host_dir(who.uuid)),
        address=entry.address,
        credentials=identity.credentials,
        options=entry.options,
    )
    if who.kind is HostKind.SECONDARY_STORAGE:
        store: ImageStore = _create(STORES, entry.backend, settings)
        return StorageHost(who.uuid, store)
    backend: Backend = _create(BACKENDS, entry.backend, settings)
    return RoutingHost(who.uuid, backend, journal)


def _create(group: str, name: str, settings: HostSettings) -> Any:
    """Call the `create` behind an entry point: the agent knows backends by name only."""
    found = importlib.metadata.entry_points(group=group)
    if name not in found.names:
        known = ", ".join(sorted(found.names)) or "none"
        raise BadSettings(f"backend {name} is not installed; {group} has {known}")
    try:
        return found[name].load()(settings)
    except ValueError as error:
        raise BadSettings(f"backend {name}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse arguments and run. Returns the exit status: 0 told to stop, 2 a person has to change something."""
    log_as_json()
    try:
        asyncio.run(run(_settings(arguments)))
    except FAULTS as error:
        log.error("agent.cannot_run", reason=str(error))
        return 2
    return 0


def log_as_json() -> None:
    """One JSON object a line on standard error."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )


def _settings(arguments: Sequence[str] | None) -> AgentSettings:
    parser = argparse.ArgumentParser(prog="pileus-agent", description="Runs guests on this machine for a Pileus cloud.")
    parser.add_argument("--config", type=Path, help="TOML file; the other options describe one host without a file")
    parser.add_argument("--server", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--state-dir", default="")
    parser.add_argument("--token-file", default="", help="file with TOKEN [--ca-sha256 HEX]")
    parser.add_argument("--kind", default=HostKind.ROUTING.value, choices=[kind.value for kind in HostKind])
    parser.add_argument("--backend", default="")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="option of the backend")
    given = parser.parse_args(arguments)
    if given.config is not None:
        return from_file(given.config)
    host = {
        "token_file": given.token_file,
        "kind": given.kind,
        "backend": given.backend,
        "address": given.address,
        "options": options_from_pairs(given.option),
    }
    return from_document({"servers": given.server, "state_dir": given.state_dir, "host": [host]})
