"""The composition root of the management server: the only place that wires the rooms together."""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog
from sqlalchemy import RowMapping
from sqlalchemy.exc import SQLAlchemyError

from pileus import __version__
from pileus.server.alerts.standing import AlertType, raise_alert
from pileus.server.api.app import create_app, create_integration_app
from pileus.server.config import keys, value
from pileus.server.db.migrate import DatabaseTooNew, DatabaseTooOld, make_ready
from pileus.server.db.transaction import Database, Tx
from pileus.server.doors import Door
from pileus.server.events import job_ended, job_failed, job_started
from pileus.server.farm import Farm
from pileus.server.first_start import admin_password
from pileus.server.health import Health
from pileus.server.hosts import liveness
from pileus.server.hosts.authority import Authority
from pileus.server.hosts.callbacks import Callbacks
from pileus.server.hosts.listener import Listener, ListenerSettings
from pileus.server.hosts.liveness import Change
from pileus.server.hosts.operations import HostOperation
from pileus.server.jobs.engine import Engine, Hooks
from pileus.server.jobs.pool import JobPool
from pileus.server.jobs.reconciler import ReconcilerPool
from pileus.server.jobs.submit import wake
from pileus.server.log import write_lines
from pileus.server.lookout import Lookout
from pileus.server.membership import Consequences, Membership
from pileus.server.meter import Counter
from pileus.server.metrics import Metrics
from pileus.server.registered import register_all
from pileus.server.services import host, host_alert, vm_stats, vm_sync
from pileus.server.settings import BadSettings, ServerSettings, from_file
from pileus.wire.messages import Happened, HostIntro, HostStats

log = structlog.get_logger(__name__)

ENDED = Counter(
    "pileus_jobs_ended_total", "Jobs that this server brought to an end: succeeded, failed, stuck", "workflow", "state"
)

DRAIN_SECONDS = 5.0
"""How long a stopping server waits for calls that it is answering."""


class Superseded(Exception):
    """Another process came under the name of this server."""


class Server:
    """One management server: API, agents' listener, job workers, reconcilers. Several on one database are a farm."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.database = Database(settings.database)

    async def run(self, stop: asyncio.Event, hurry: asyncio.Event | None = None) -> None:
        """Serve until `stop` is set; then let steps end, give jobs back, and tell the agents.

        `hurry` ends the time in which a server that is about to stop still answers calls. Raises Superseded when
        another process came under this server's name.
        """
        await asyncio.to_thread(self._prepare)
        authority = await asyncio.to_thread(Authority.load, self.database)
        listener = Listener(self.database, authority, self._listener_settings(), _callbacks())
        jobs = JobPool(Engine(self.database, owner=self.settings.name, hooks=_hooks()), workers=self.settings.workers)
        reconcilers = ReconcilerPool(self.database, owner=self.settings.name)
        farm = Farm(self.database)
        checks = {
            "jobs": jobs.trouble,
            "reconcilers": reconcilers.trouble,
            "agents": lambda: listener.trouble,
        }
        health = Health(self.database, create_app(self.database), checks)
        live = {
            "pileus_api_calls_in_progress": lambda: health.calls,
            "pileus_agent_connections": lambda: len(listener.delivery.lines),
            "pileus_agent_hosts_connected": lambda: len(listener.delivery.connected),
        }
        metrics = Metrics(health, self.database, peers=self.settings.metrics_peers, live=live)
        doors = await asyncio.to_thread(self._open_doors, metrics)
        await listener.start()
        superseded = asyncio.Event()
        membership = self._membership(doors[0], listener, superseded)
        lookout = Lookout(self.database, in_company=lambda: bool(membership.others))
        await asyncio.to_thread(membership.enter)
        for part in (farm, membership, lookout, jobs, reconcilers):
            part.start()
        serving = asyncio.create_task(_serve_all(doors))
        told = [asyncio.create_task(_until(event)) for event in (stop, superseded)]
        try:
            log.info("server ready", api=f"{doors[0].address}:{doors[0].port}", agents=listener.port)
            await asyncio.wait({serving, *told}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in told:
                task.cancel()
            health.drain()
            # Jobs and hosts go to others of the farm at once; calls are answered as long as they still come here.
            stops = (asyncio.to_thread(part.stop) for part in (jobs, reconcilers))
            giving_up = asyncio.gather(listener.close(), *stops)
            await self._drain(health, serving, superseded if superseded.is_set() else hurry or asyncio.Event())
            for door in doors:
                door.close()
            await asyncio.gather(serving, return_exceptions=True)
            await giving_up
            for end in (lookout.stop, membership.leave, farm.stop):
                await asyncio.to_thread(end)
            self.database.dispose()
            log.info("server stopped")
        # A door that fell shut by itself is an error, however well the rest was put away.
        serving.result()
        if superseded.is_set():
            raise Superseded(self.settings.name)

    def _membership(self, door: Door, listener: Listener, superseded: asyncio.Event) -> Membership:
        loop = asyncio.get_running_loop()

        def given_up() -> None:
            asyncio.run_coroutine_threadsafe(listener.begin_anew(), loop)

        def come_second() -> None:
            loop.call_soon_threadsafe(superseded.set)

        return Membership(
            self.database,
            name=self.settings.name,
            address=f"{door.address}:{door.port}",
            version=__version__,
            consequences=Consequences(on_dead=liveness.released, on_given_up=given_up, on_superseded=come_second),
        )

    def _prepare(self) -> None:
        self.settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_ready(self.database)
        admin_password(self.database, self.settings.state_dir / "admin-password")

    async def _drain(self, health: Health, serving: asyncio.Task[None], hurry: asyncio.Event) -> None:
        log.info("server stops", calls=health.calls, drain_seconds=self.settings.drain_seconds)
        drained = health.drained(at_least=self.settings.drain_seconds, at_most=DRAIN_SECONDS)
        either = [asyncio.create_task(drained), asyncio.create_task(_until(hurry))]
        await asyncio.wait([*either, serving], return_when=asyncio.FIRST_COMPLETED)
        for task in either:
            task.cancel()
        await asyncio.gather(*either, return_exceptions=True)

    def _listener_settings(self) -> ListenerSettings:
        return ListenerSettings(
            server=self.settings.name,
            address=self.settings.agent_address,
            port=self.settings.agent_port,
            names=self.settings.agent_names,
        )

    def _open_doors(self, app: Metrics) -> list[Door]:
        doors = [Door(app, self.settings.api_address, self.settings.api_port)]
        with self.database.read() as tx:
            port = value(tx, keys.integration_api_port)
        if port:
            # Without authentication: loopback only. Who needs it elsewhere puts a proxy of their own before it.
            doors.append(Door(create_integration_app(self.database), "127.0.0.1", port))
        return doors


async def _serve_all(doors: list[Door]) -> None:
    await asyncio.gather(*(door.serve() for door in doors))


async def _until(stop: asyncio.Event) -> None:
    await stop.wait()


def _hooks() -> Hooks:
    return Hooks(on_start=[_began], on_end=[job_ended, _count_end], on_failed=[job_failed], on_stuck=[_stuck])


def _began(tx: Tx, workflow: str, start_event_id: int) -> None:
    # Guests' jobs say in their own words when they begin.
    if not workflow.startswith("vm."):
        job_started(tx, start_event_id)


def _callbacks() -> Callbacks:
    return Callbacks(
        on_answer=_answered,
        on_inventory=_introduced,
        on_happened=_happened,
        on_report=_reported,
        on_state=_state_changed,
    )


def _answered(tx: Tx, operation: HostOperation) -> None:
    wake(tx, operation.topic)


def _introduced(tx: Tx, intros: Sequence[tuple[int, HostIntro]]) -> None:
    host.introduced_all(tx, intros)
    vm_sync.inventories(tx, [(host_id, intro.holds) for host_id, intro in intros])


def _happened(tx: Tx, host_id: int, what: Happened) -> None:
    vm_sync.happened(tx, host_id, uuid=what.uuid, epoch=what.epoch, change=what.change)


def _reported(tx: Tx, reports: Sequence[tuple[int, HostStats]]) -> None:
    vm_stats.reported_all(tx, reports)


def _state_changed(tx: Tx, changes: Sequence[Change]) -> None:
    host_alert.changed_all(tx, [(change.host_id, change.state) for change in changes])
    wake(tx, *(f"host:{change.host_id}" for change in changes))


def _count_end(tx: Tx, job: RowMapping) -> None:
    tx.after_commit(lambda: ENDED.add(job["workflow"], job["phase"]))


def _stuck(tx: Tx, job: RowMapping) -> None:
    tx.after_commit(lambda: ENDED.add(job["workflow"], job["phase"]))
    raise_alert(
        tx,
        AlertType.JOB,
        f"job:{job['id']}",
        f"Job {job['uuid']} ({job['command']}) cannot undo what it began: {job['error_text']}",
    )


async def serve(settings: ServerSettings) -> None:
    """Run a server until SIGTERM or SIGINT. A second one has it stop without draining."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    await Server(settings).run(stop, hurry)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: `--config FILE`."""
    parser = argparse.ArgumentParser(prog="pileus server", description="Run a Pileus management server.")
    parser.add_argument("--config", type=Path, required=True, help="TOML file; docs/operating.md tells what it may say")
    given = parser.parse_args(arguments)
    # What we write holds keys: the database, the administrator's first password.
    os.umask(0o077)
    try:
        settings = from_file(given.config)
    except BadSettings as error:
        sys.stderr.write(f"pileus server: {error}\n")
        return 2
    write_lines(level=settings.log_level, form=settings.log_format)
    register_all()
    try:
        asyncio.run(serve(settings))
    except (SQLAlchemyError, DatabaseTooOld, DatabaseTooNew) as error:
        # The first line only: what follows is SQL.
        sys.stderr.write(f"pileus server: database: {str(error).splitlines()[0]}\n")
        return 1
    except Superseded as error:
        sys.stderr.write(f"pileus server: another server of the farm has the name {error}: give each its own\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"pileus server: {error}\n")
        return 1
    return 0
