"""Remote access to the guest network: strongSwan and xl2tpd, started with the first VPN and ended with the last.

Only a machine of the router's own can do this: PPP and ESP belong to its kernel, and pppd's files to all of it.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
from pathlib import Path
from typing import Protocol

import structlog

from pileus.appliance.router import tunnels
from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.processes import ended, named
from pileus.appliance.router.programs import ENVIRONMENT, find, run
from pileus.wire.router import RouterConfig

READY_SECONDS = 10.0
STOP_SECONDS = 5.0
PAUSE_SECONDS = 1.0
POLL_SECONDS = 0.05

CHARON = "/usr/sbin/charon-systemd"
XL2TPD = "xl2tpd"

_CONFIGURED = {"STRONGSWAN_CONF": str(tunnels.CHARON_CONFIG)}

log = structlog.get_logger()


class Machine(Protocol):
    """What the VPN does to the machine that the router has for itself. All raise StepFailed."""

    async def prepare(self) -> None:
        """Drivers, and a place for the files."""

    def write(self, path: Path, file: tunnels.File) -> None:
        """Replace a file in one step."""

    async def start(self, program: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        """Have the program run until `stop`, whatever happens to it."""

    async def stop(self, program: str) -> None:
        """End it; no error when it does not run."""

    async def run(self, program: str, *arguments: str) -> None:
        """To its end."""

    def end_sessions(self, users: frozenset[str]) -> None:
        """Hang up on these users."""


class Vpn:
    """Part of the router that owns tunnels."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._in_place: tunnels.Plan | None = None
        self._known = False
        """False when what runs may not be as `_in_place` says."""

    async def apply(self, config: RouterConfig | None) -> None:
        """Let in by tunnels whom `config` says, and nobody without a VPN."""
        wanted = tunnels.plan(config)
        before, known, self._known = self._in_place, self._known, False
        if wanted is None:
            if before is not None or not known:
                await self.stop()
        elif not known or before is None:
            await self.stop()
            await self._start(wanted)
        elif wanted != before:
            await self._change(before, wanted)
        self._in_place, self._known = wanted, True

    async def stop(self) -> None:
        """End all tunnels."""
        for program in (XL2TPD, CHARON):
            await self._machine.stop(program)

    async def _start(self, wanted: tunnels.Plan) -> None:
        await self._machine.prepare()
        self._write(wanted)
        await self._start_keying()
        await self._start_tunnelling()

    async def _change(self, before: tunnels.Plan, wanted: tunnels.Plan) -> None:
        self._write(wanted)
        if wanted.keying != before.keying:
            # Another key or address: whoever is in came by the old one.
            await self.stop()
            await self._start_keying()
            await self._start_tunnelling()
        elif wanted.tunnelling != before.tunnelling:
            await self._machine.stop(XL2TPD)
            await self._start_tunnelling()
        else:
            # pppd reads the secrets anew for each caller.
            self._machine.end_sessions(tunnels.ended_users(before, wanted))

    def _write(self, wanted: tunnels.Plan) -> None:
        for path, file in wanted.files().items():
            self._machine.write(path, file)

    async def _start_keying(self) -> None:
        await self._machine.start(CHARON, environment=_CONFIGURED)
        # It listens some time after its start.
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        load = ("--load-all", "--noprompt", "--uri", tunnels.VICI, "--file", str(tunnels.SWANCTL_CONFIG))
        while True:
            try:
                await self._machine.run("swanctl", *load)
            except StepFailed:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(POLL_SECONDS)
            else:
                return

    async def _start_tunnelling(self) -> None:
        files = ("-c", str(tunnels.XL2TPD_CONFIG), "-p", str(tunnels.PLACE / "xl2tpd.pid"))
        await self._machine.start(XL2TPD, "-D", *files, "-C", str(tunnels.PLACE / "l2tp-control"))


class OwnMachine:
    """The machine this program runs in, which is the router's alone."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Task[None]] = {}

    async def prepare(self) -> None:
        await run("modprobe", "-a", "ppp_generic", "l2tp_ppp", "esp4", "xfrm_user")
        try:
            for directory in (tunnels.PLACE, tunnels.SESSIONS):
                directory.mkdir(mode=0o700, exist_ok=True)
            for left in tunnels.SESSIONS.iterdir():
                left.unlink()
            if os.statvfs(tunnels.PPP).f_flag & os.ST_RDONLY:
                _mount_over(tunnels.PPP)
        except OSError as error:
            raise StepFailed(f"no place for the VPN's files: {error.strerror}") from error

    def write(self, path: Path, file: tunnels.File) -> None:
        new = path.with_name(f"{path.name}.new")
        try:
            descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, file.mode)
            with open(descriptor, "w") as opened:
                opened.write(file.text)
            new.replace(path)
        except OSError as error:
            raise StepFailed(f"writing {path.name}: {error.strerror}") from error

    async def start(self, program: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        find(program)
        await self.stop(program)
        running = self._keep_running(program, arguments, {**ENVIRONMENT, **(environment or {})})
        self._running[program] = asyncio.create_task(running, name=program)

    async def stop(self, program: str) -> None:
        task = self._running.pop(program, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        # What a killed program of ours left behind; no one else runs these here.
        for name in (Path(program).name, *(["pppd"] if program == XL2TPD else [])):
            for pid in named(name):
                await _end_left(pid)

    async def run(self, program: str, *arguments: str) -> None:
        await run(program, *arguments, environment=_CONFIGURED)

    def end_sessions(self, users: frozenset[str]) -> None:
        with contextlib.suppress(OSError):
            for session in tunnels.SESSIONS.iterdir():
                user, _, pid = session.name.rpartition(":")
                if user in users and pid.isdecimal():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(pid), signal.SIGTERM)

    async def _keep_running(self, program: str, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        while True:
            nothing = asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(
                find(program), *arguments, stdin=nothing, stdout=nothing, stderr=nothing, env=environment
            )
            try:
                log.warning("a program of the VPN ended", program=program, code=await process.wait())
            finally:
                await _end(process)
            await asyncio.sleep(PAUSE_SECONDS)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _end_left(pid: int) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if await ended(pid, STOP_SECONDS):
            return
    raise StepFailed(f"process {pid} of the VPN does not end")


def _mount_over(directory: Path) -> None:
    """A file system in memory, for us alone, where the disk cannot be written."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(directory), b"tmpfs", 0, b"mode=700,size=1m") != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
