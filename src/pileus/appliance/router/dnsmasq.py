"""DHCP and DNS of the guest network: one supervised dnsmasq that reads its files again when guests come and go.

dnsmasq runs as nobody, so its files lie where everyone may read. It outlives a killed appliance; the next one
ends it by its network namespace before it starts its own.
"""

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import struct
import time
from pathlib import Path

import structlog

from pileus.appliance.router import leases, release
from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.processes import ended, named
from pileus.appliance.router.programs import ENVIRONMENT, find
from pileus.wire.router import RouterConfig

START_SECONDS = 20.0
STOP_SECONDS = 5.0
RELEASE_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 5.0
POLL_SECONDS = 0.005

_GET_MTU = 0x8921
_MTU = struct.Struct("16si20x")

log = structlog.get_logger()


class Dnsmasq:
    """Part of the router that owns DHCP and DNS on `device`. `files` is readable by all, `lease_file` is kept."""

    def __init__(self, *, device: str, files: Path, lease_file: Path) -> None:
        self._device = device
        self._files = files
        self._lease_file = lease_file
        self._pid_file = files / "dnsmasq.pid"
        self._plan: leases.Plan | None = None
        self._in_place: tuple[object, ...] | None = None
        """What dnsmasq is known to have been told; None after a start, and after a failure."""
        self._process: asyncio.subprocess.Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.starts = 0

    async def apply(self, config: RouterConfig | None) -> None:
        """Serve what `config` says, nothing when it is None or has neither service."""
        mtu = self._mtu()
        wanted = (mtu, *leases.told(config)) if config else ()
        if wanted == self._in_place and self._as_planned():
            return
        self._in_place = None
        await self._follow(leases.plan(config, mtu=mtu) if config else None)
        self._in_place = wanted

    def _as_planned(self) -> bool:
        runs = self._process is not None and self._process.returncode is None
        return runs == (self._plan is not None and self._plan.wanted)

    async def _follow(self, plan: leases.Plan | None) -> None:
        before, self._plan = self._plan, plan
        if plan is None or not plan.wanted:
            await self.stop()
            return
        changed = self._write(plan)
        same = before is not None and (before.arguments, before.guest_ip) == (plan.arguments, plan.guest_ip)
        if before is None or not same or self._process is None or self._process.returncode is not None:
            await self.stop()
            await self._start(plan)
            self._supervisor = asyncio.create_task(self._supervise(), name="dnsmasq")
        elif changed:
            self._process.send_signal(signal.SIGHUP)
            await self._release(plan, before)

    def _mtu(self) -> int:
        """How many bytes fit into a packet of the device (netdevice(7))."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            try:
                answer = fcntl.ioctl(any_socket, _GET_MTU, _MTU.pack(self._device.encode(), 0))
            except OSError as error:
                raise StepFailed(f"asking for the MTU of {self._device}: {error.strerror}") from error
        return int(_MTU.unpack(answer)[1])

    async def stop(self) -> None:
        """End dnsmasq and do not start it again."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None
        await self._end()

    async def _end(self) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
            try:
                async with asyncio.timeout(STOP_SECONDS):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._process = None

    def _write(self, plan: leases.Plan) -> bool:
        """Write the files that differ; True when there was one."""
        changed = False
        for name, text in plan.files.items():
            path = self._files / name
            try:
                if path.exists() and path.read_text() == text:
                    continue
                new = path.with_name(f"{name}.new")
                new.write_text(text)
                new.chmod(0o644)
                new.replace(path)
            except OSError as error:
                raise StepFailed(f"writing {name} for dnsmasq: {error.strerror}") from error
            changed = True
        return changed

    async def _start(self, plan: leases.Plan) -> None:
        """Start dnsmasq and wait until it has its sockets; raises StepFailed with its complaint."""
        await end_leftovers(f"--pid-file={self._pid_file}")
        self._forget_gone(plan)
        self._pid_file.unlink(missing_ok=True)
        self.starts += 1
        process = await asyncio.create_subprocess_exec(
            find("dnsmasq"),
            *self._arguments(plan),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
        )
        self._process = process
        deadline = time.monotonic() + START_SECONDS
        # It writes its process id after it has bound everything.
        while not self._pid_file.exists():
            if process.returncode is not None or time.monotonic() > deadline:
                complaint = await self._complaint(process)
                await self._end()
                raise StepFailed(f"dnsmasq: {complaint}")
            await asyncio.sleep(POLL_SECONDS)

    async def _complaint(self, process: asyncio.subprocess.Process) -> str:
        if process.returncode is None:
            return f"not ready in {START_SECONDS:.0f} s"
        said = await process.stderr.read() if process.stderr else b""
        return said.decode(errors="replace").strip() or f"ended with {process.returncode}"

    def _arguments(self, plan: leases.Plan) -> list[str]:
        return [
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=nobody",
            "--group=nogroup",
            f"--pid-file={self._pid_file}",
            f"--interface={self._device}",
            "--except-interface=lo",
            "--bind-interfaces",
            "--no-hosts",
            "--no-resolv",
            "--no-poll",
            "--no-ping",
            "--bogus-priv",
            "--log-facility=/dev/null",
            f"--addn-hosts={self._files / 'hosts'}",
            f"--servers-file={self._files / 'servers'}",
            f"--dhcp-hostsfile={self._files / 'dhcp-hosts'}",
            f"--dhcp-leasefile={self._lease_file}",
            *plan.arguments,
        ]

    async def _supervise(self) -> None:
        """Whenever dnsmasq ends by itself, start it again, the more patiently the more often it fails."""
        pause = 0.1
        while True:
            if self._process is not None:
                code = await self._process.wait()
                log.warning("dnsmasq ended", code=code)
                self._process = None
            began = time.monotonic()
            try:
                if self._plan is not None:
                    await self._start(self._plan)
                pause = 0.1
            except StepFailed as error:
                log.error("dnsmasq does not start", error=str(error))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - began)))

    def _forget_gone(self, plan: leases.Plan) -> None:
        """Before a start: take leases out of the file that are no longer ours to give."""
        if not self._lease_file.exists():
            return
        lines = self._lease_file.read_text().splitlines(keepends=True)
        gone = {(one.mac, one.ip) for one in self._gone(plan)}
        kept = [line for line in lines if (words := line.split()) and (words[1].lower(), words[2]) not in gone]
        self._lease_file.write_text("".join(kept))

    def _gone(self, plan: leases.Plan) -> list[release.Held]:
        if not self._lease_file.exists():
            return []
        return [one for one in release.held(self._lease_file.read_text()) if (one.mac, one.ip) not in plan.leased]

    async def _release(self, plan: leases.Plan, before: leases.Plan) -> None:
        """End the leases of guests that are gone; where dnsmasq will not, a new one must."""
        gone = {(lease.mac, lease.ip): lease for lease in self._gone(plan)}
        # A guest has its lease before dnsmasq has written it down: what could have been given is released, too.
        for mac, ip in before.leased - plan.leased:
            gone.setdefault((mac, ip), release.Held(mac, ip, "*"))
        for lease in gone.values():
            release.release(lease, server=plan.guest_ip, device=self._device)
        deadline = time.monotonic() + RELEASE_SECONDS
        while self._gone(plan):
            if time.monotonic() > deadline:
                log.warning("dnsmasq keeps leases that are gone", leases=len(self._gone(plan)))
                await self.stop()
                await self._start(plan)
                self._supervisor = asyncio.create_task(self._supervise(), name="dnsmasq")
                return
            await asyncio.sleep(POLL_SECONDS)


async def end_leftovers(marker: str) -> None:
    """Kill every dnsmasq of this network namespace with argument `marker`: a killed appliance left it behind."""
    for pid in named("dnsmasq", marker):
        log.warning("ending a dnsmasq left behind", pid=pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if not await ended(pid, STOP_SECONDS):
            raise StepFailed("a dnsmasq left behind does not end")
