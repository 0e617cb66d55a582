"""The router's load balancers: one haproxy, whose master outlives a killed appliance and is taken over by the next.

Members come and go at run time; everything else is a reload, in which a new worker takes over the listening sockets
and the old one keeps its connections until they end.
"""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import structlog

from pileus.appliance.router import balancing
from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.processes import ended, named
from pileus.appliance.router.programs import ENVIRONMENT, find, run
from pileus.wire.router import RouterConfig

CONFIG = "haproxy.cfg"
MOST_CONNECTIONS = 4000
START_SECONDS = 10.0
STOP_SECONDS = 5.0
ANSWER_SECONDS = 5.0
LEAVE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 5.0
POLL_SECONDS = 0.005

log = structlog.get_logger()


class Haproxy:
    """Part of the router that owns the doors of balancers. `directory` is kept, and its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._in_place: balancing.Plan | None = None
        """None when it is not known what haproxy does."""
        self._plan = balancing.plan(None)
        self._master: int | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    async def apply(self, config: RouterConfig | None) -> None:
        """Balance what `config` says; without a balancer that has members nothing runs."""
        wanted = balancing.plan(config)
        async with self._lock:
            before, self._in_place = self._in_place, None
            if before != wanted or (wanted.balancers and self._master is None):
                self._plan = wanted
                await self._bring(before, wanted)
            self._in_place = wanted

    async def stop(self) -> None:
        """End haproxy and do not start it again."""
        self._in_place = None
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        await self._end()

    async def _bring(self, before: balancing.Plan | None, wanted: balancing.Plan) -> None:
        if not wanted.balancers:
            await self.stop()
            return
        self._find_master()
        await self._write(wanted, validate=before is None or before.shape() != wanted.shape())
        if self._master is None:
            await self._start()
        elif before is None or before.shape() != wanted.shape() or not await self._exchange(before, wanted):
            await self._reload(self._master, before, wanted)
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(), name="haproxy")

    def _find_master(self) -> None:
        """The haproxy of this router that runs, if there is one: it may be that of an appliance that was killed."""
        if self._master is None:
            found = named("haproxy", str(self._directory / CONFIG))
            self._master = next((pid for pid, parent in found.items() if parent not in found), None)

    async def _write(self, wanted: balancing.Plan, *, validate: bool) -> None:
        """Replace the file; raises StepFailed with what haproxy says of it."""
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        room = MOST_CONNECTIONS if hard == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, (hard - 200) // 2)
        path, new = self._directory / CONFIG, self._directory / f"{CONFIG}.new"
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            new.write_text(balancing.rendered(wanted, connections=room))
        except OSError as error:
            raise StepFailed(f"writing {CONFIG}: {error.strerror}") from error
        if validate:
            await run("haproxy", "-c", "-q", "-f", str(new))
        new.replace(path)

    async def _start(self) -> None:
        for pid in named("haproxy", str(self._directory / CONFIG)):
            # Workers whose master was killed hold the doors.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                await ended(pid, STOP_SECONDS)
        (self._directory / balancing.STATES).write_text(balancing.NO_STATES)
        (self._directory / balancing.SOCKET).unlink(missing_ok=True)
        program = [find("haproxy"), "-W", "-f", str(self._directory / CONFIG)]
        with (self._directory / "log").open("wb") as said:
            # Not asyncio's: that one kills its child with the event loop, and this one must outlive a killed appliance.
            self._child = subprocess.Popen(  # noqa: ASYNC220
                program,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=ENVIRONMENT,
                cwd=self._directory,
                start_new_session=True,
            )
        self._master = self._child.pid
        try:
            await self._ready(0)
        except StepFailed:
            await self._end()
            raise

    async def _reload(self, master: int, before: balancing.Plan | None, wanted: balancing.Plan) -> None:
        worker = await self._worker()
        if worker:
            (self._directory / balancing.STATES).write_text(await self._ask("show servers state"))
            for name in before.servers().keys() - wanted.servers().keys() if before else ():
                await self._ask(f"shutdown sessions server {name}")
        said = self._said()
        try:
            os.kill(master, signal.SIGUSR2)
        except ProcessLookupError:
            self._master = None
            await self._start()
            return
        await self._ready(worker, len(said))

    async def _exchange(self, before: balancing.Plan, wanted: balancing.Plan) -> bool:
        """Have members come and go at run time; False when haproxy would not."""
        old, new = before.servers(), wanted.servers()
        try:
            for name in sorted(new.keys() - old.keys()):
                shutdown = "on-marked-down shutdown-sessions"
                await self._must(
                    f"add server {name} {new[name]} {balancing.CHECKS} {shutdown}", "New server registered"
                )
                await self._must(f"enable health {name}")
                await self._must(f"enable server {name}")
            for name in sorted(old.keys() - new.keys()):
                await self._must(f"set server {name} state maint")
                await self._must(f"shutdown sessions server {name}")
                await self._delete(name)
        except (StepFailed, OSError) as error:
            log.warning("haproxy is reloaded, as members cannot change at run time", error=str(error))
            return False
        return True

    async def _delete(self, name: str) -> None:
        """Take a server out, as soon as its last connection has ended."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while "Server deleted" not in (said := await self._ask(f"del server {name}")):
            if time.monotonic() > deadline:
                raise StepFailed(f"haproxy: {said.strip()}")
            await asyncio.sleep(POLL_SECONDS)

    async def _must(self, command: str, answer: str = "") -> None:
        said = (await self._ask(command)).strip()
        if answer not in said if answer else said:
            raise StepFailed(f"haproxy: {said}")

    async def _ready(self, before: int, said: int = 0) -> None:
        """Wait for a worker other than `before`; `said` is how long the log was before that."""
        deadline = time.monotonic() + START_SECONDS
        while await self._worker() in (0, before):
            over = self._child is not None and self._child.poll() is not None
            # A master that cannot do what is new stays, and lets the old worker go on.
            refuses = "[ALERT]" in self._said()[said:]
            if over or refuses or time.monotonic() > deadline:
                raise StepFailed(f"haproxy does not come up: {self._last_words()}")
            await asyncio.sleep(POLL_SECONDS)

    async def _worker(self) -> int:
        """Process id of the worker that has the doors, 0 when none answers."""
        with contextlib.suppress(StepFailed):
            for line in (await self._ask("show info")).splitlines():
                if line.startswith("Pid: "):
                    return int(line.removeprefix("Pid: "))
        return 0

    async def _ask(self, command: str) -> str:
        """What the worker answers; raises StepFailed when there is none."""
        # By way of its directory a path of any length fits into an address of AF_UNIX.
        directory = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{balancing.SOCKET}")
                try:
                    writer.write(f"{command}\n".encode())
                    return (await reader.read()).decode(errors="replace")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as error:
            raise StepFailed(f"haproxy does not answer: {error or type(error).__name__}") from error
        finally:
            os.close(directory)

    async def _supervise(self) -> None:
        """Whenever haproxy ends by itself, start it again, the more patiently the more often it fails."""
        pause = 0.1
        while True:
            if self._master is not None:
                await ended(self._master)
                if self._child is not None:
                    self._child.wait()
                log.warning("haproxy ended", said=self._last_words())
                self._master = self._child = None
            began = time.monotonic()
            async with self._lock:
                try:
                    if self._master is None:
                        await self._write(self._plan, validate=False)
                        await self._start()
                    pause = 0.1
                except StepFailed as error:
                    log.error("haproxy does not start", error=str(error))
                    pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - began)))

    async def _end(self) -> None:
        self._find_master()
        if self._master is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._master, number)
            if self._child is not None and await ended(self._master, STOP_SECONDS):
                self._child.wait()
            if await ended(self._master, STOP_SECONDS):
                break
        self._master = self._child = None

    def _last_words(self) -> str:
        lines = self._said().splitlines()
        alerts = [line for line in lines if "[ALERT]" in line]
        return "; ".join((alerts or lines)[-3:]) or "it said nothing"

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            return (self._directory / "log").read_text(errors="replace")
        return ""
