"""Runs virtual routers in network namespaces of the host: no boot, half a second to start, thirty MiB each.

A router is a namespace, a veth pair for each NIC, the appliance as a session of its own, and a directory. The
directory is written before anything is made and removed after everything is gone, so whatever crash came between,
the router is listed, can be started again, and can be removed. It lives in the host's process namespace and dies
with it; an agent that ends leaves it running.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import msgspec
import structlog

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import programs, rates, router_control
from pileus.agent.backends.kvm.router_lives import Life, Lives, check, checked, number_of, refusing
from pileus.wire.messages import VmSeen
from pileus.wire.operations import Reason, RouterFacts, RouterSpec
from pileus.wire.places import NetworkRef
from pileus.wire.router import RouterConfig

DEVICES = ("eth0", "eth2")
"""The guide's names: eth0 is the guest side, eth2 the public one (eth1 is for control, which needs no card here)."""

APPLIANCE = "pileus.appliance.router"
START_SECONDS = 30.0
END_SECONDS = 10.0
GRACE_SECONDS = 2.0
POLL_SECONDS = 0.01

_inherited = ("PYTHONPATH", "VIRTUAL_ENV", "HOME", "LANG")
_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

log = structlog.get_logger()


class NamespaceRouters:
    """Routers of one host, kept in `state`, a directory of ours alone. A `RouterLauncher`."""

    def __init__(self, state: Path) -> None:
        self._lives = Lives(state)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._appliances: dict[str, subprocess.Popen[bytes]] = {}
        """Those we started ourselves: held so that they are reaped, and killed before they have entered."""

    async def start(self, router: RouterSpec, config: RouterConfig, bridges: tuple[str, ...]) -> RouterFacts:
        """As `RouterLauncher.start`. A start that is refused leaves nothing that was not there before."""
        check(router, bridges)
        async with self._locks[router.name], refusing("start"):
            known = self._lives.known(router)
            if not known:
                await self._remove(router.name)
            try:
                return await self._bring(Life(router, bridges), config)
            except BaseException:
                if not known:
                    # Cancelled or failed: what we made goes before anyone can see half a router.
                    await asyncio.shield(self._remove(router.name))
                raise

    async def configure(self, name: str, config: RouterConfig) -> RouterFacts:
        """As `RouterLauncher.configure`; an appliance that died is started again first."""
        async with self._locks[name], refusing("configure"):
            life = self._lives.of(name)
            if life is None or not _namespace_path(name).exists():
                raise Refused(Reason.MISSING, f"router {name} is not here")
            await self._bring_appliance(life)
            return await router_control.configure(self._socket(name), config)

    async def remove(self, name: str) -> None:
        """As `RouterLauncher.remove`."""
        async with self._locks[checked(name)], refusing("remove"):
            await self._remove(name)

    async def seen(self) -> list[VmSeen]:
        """As `RouterLauncher.seen`."""
        lives = self._lives.every()
        running = await asyncio.gather(*(self._runs(life.router.name) for life in lives))
        return [
            VmSeen(name=life.router.name, uuid=life.router.uuid, epoch=life.router.epoch, running=runs, router=True)
            for life, runs in zip(lives, running, strict=True)
        ]

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        """As `RouterLauncher.networks_of`."""
        life = self._lives.of(name)
        return tuple(nic.network for nic in life.router.nics) if life else ()

    async def revive(self) -> None:
        """Start the appliance again in every namespace where it died; it applies its last config by itself."""
        for name in self._lives.names():
            async with self._locks[name]:
                life = self._lives.of(name)
                if life is None or not _namespace_path(name).exists():
                    continue
                try:
                    await self._bring_appliance(life)
                except (Refused, programs.Failed, OSError) as error:
                    log.error("router cannot be revived", router=name, error=str(error))

    async def _runs(self, name: str) -> bool:
        return _namespace_path(name).exists() and await router_control.answers(self._socket(name))

    async def _bring(self, life: Life, config: RouterConfig) -> RouterFacts:
        """Make whatever of the router is not there, and apply the config."""
        name = life.router.name
        self._lives.keep(life)
        await self._bring_namespace(name)
        for index, nic in enumerate(life.router.nics):
            await self._plug(name, index, nic.mac, life.bridges[index])
            if nic.rate_mbps:
                await rates.limit(_outer(name, index), nic.rate_mbps)
                await rates.limit(DEVICES[index], nic.rate_mbps, namespace=_namespace(name))
        await self._bring_appliance(life)
        return await router_control.configure(self._socket(name), config)

    async def _bring_namespace(self, name: str) -> None:
        ended = await programs.attempt(["ip", "netns", "exec", _namespace(name), "true"])
        if ended.status == 0:
            return
        # A crash between making the file and mounting the namespace on it leaves a name without a namespace.
        if _namespace_path(name).exists():
            await programs.run(["ip", "netns", "del", _namespace(name)])
        await programs.run(["ip", "netns", "add", _namespace(name)])

    async def _plug(self, name: str, index: int, mac: str, bridge: str) -> None:
        """One NIC: a veth pair from the namespace to the bridge."""
        outer, inner = _outer(name, index), DEVICES[index]
        inside = ["ip", "-n", _namespace(name), "link"]
        whole = await programs.attempt([*inside, "show", "dev", inner])
        if whole.status != 0:
            # Half a pair is of no use.
            await programs.attempt(["ip", "link", "del", outer])
            mtu = str(await _mtu(bridge))
            peer = ["peer", "name", inner, "mtu", mtu, "address", mac, "netns", _namespace(name)]
            await programs.run(["ip", "link", "add", outer, "mtu", mtu, "type", "veth", *peer])
        await programs.run(["ip", "link", "set", outer, "master", bridge, "up"])
        await programs.run([*inside, "set", "dev", inner, "up"])

    async def _bring_appliance(self, life: Life) -> None:
        """Start the appliance if nobody answers; raises Refused with the end of its log when it does not come up."""
        name = life.router.name
        if await router_control.answers(self._socket(name)):
            return
        # One that hangs holds the lock on its state: nobody can take its place while it is there. What it started
        # stays: the next one takes over running connections of balancers, and ends the rest.
        await self._end_processes(name, program=APPLIANCE)
        process = self._spawn(life)
        deadline = time.monotonic() + START_SECONDS
        while not await router_control.answers(self._socket(name)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Refused(Reason.FAILED, f"router {name} does not come up: {self._last_words(name)}")
            await asyncio.sleep(POLL_SECONDS)

    def _spawn(self, life: Life) -> subprocess.Popen[bytes]:
        name = life.router.name
        place = self._place(name)
        public = ["--public", DEVICES[1]] if len(life.router.nics) > 1 else []
        appliance = [sys.executable, "-m", APPLIANCE, "--control", str(self._socket(name))]
        enter = ["nsenter", f"--net={_namespace_path(name)}", "--"]
        # Not asyncio's: that one kills its child when the event loop goes away.
        with (place / "log").open("wb") as said:
            process = subprocess.Popen(
                [*enter, *appliance, "--state", str(place / "appliance"), "--guest", DEVICES[0], *public],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={key: os.environ[key] for key in _inherited if key in os.environ} | {"PATH": _path},
                cwd="/",
                start_new_session=True,
            )
        self._appliances[name] = process
        return process

    def _last_words(self, name: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            lines = (self._place(name) / "log").read_text(errors="replace").strip().splitlines()
            return lines[-1] if lines else "it said nothing"
        return "it has no log"

    async def _remove(self, name: str) -> None:
        await self._end_processes(name)
        for index in range(len(DEVICES)):
            # Taking the outer end away is at once; a namespace takes its devices along only some time after.
            await _remove_link(_outer(name, index))
        if _namespace_path(name).exists():
            await programs.run(["ip", "netns", "del", _namespace(name)])
        place = self._place(name)
        if place.exists():
            # The record goes last: as long as there is anything, the router is listed.
            await asyncio.to_thread(shutil.rmtree, place / "appliance", ignore_errors=True)
            for file in ("control", "log", "life.json.new", "life.json"):
                (place / file).unlink(missing_ok=True)
            await asyncio.to_thread(shutil.rmtree, place)

    async def _end_processes(self, name: str, program: str = "") -> None:
        """End everything in the router's namespace: the appliance, and what it may have started; or one program only.

        They are asked first, so that the appliance reaps its own child; what does not listen is killed.
        """
        own = self._appliances.pop(name, None)
        began = time.monotonic()
        asked: set[int] = set()
        while pids := await self._pids(name, own, program):
            waited = time.monotonic() - began
            if waited > END_SECONDS:
                raise Refused(Reason.FAILED, f"processes of router {name} do not end: {sorted(pids)}")
            for pid in pids if waited > GRACE_SECONDS else pids - asked:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL if waited > GRACE_SECONDS else signal.SIGTERM)
            asked |= pids
            await asyncio.sleep(POLL_SECONDS)

    async def _pids(self, name: str, own: subprocess.Popen[bytes] | None, program: str) -> set[int]:
        """Processes in the namespace (that run `program`), and the appliance that may not have entered it yet."""
        listed = await programs.attempt(["ip", "netns", "pids", _namespace(name)])
        found = {int(word) for word in listed.out.split()} if listed.status == 0 else set()
        pids = {pid for pid in found if not program or program in _arguments(pid)}
        return pids | ({own.pid} if own is not None and own.poll() is None else set())

    def _place(self, name: str) -> Path:
        return self._lives.place(name)

    def _socket(self, name: str) -> Path:
        return self._place(name) / "control"


async def _remove_link(device: str) -> None:
    """Make sure there is no such link. A namespace that went before takes its ends along whenever it likes."""
    ended = await programs.attempt(["ip", "link", "del", device])
    if ended.status != 0 and (await programs.attempt(["ip", "link", "show", "dev", device])).status == 0:
        raise programs.Failed(f"ip: {ended.said}")


def _arguments(pid: int) -> list[str]:
    """How the process was called, [] when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def _namespace(name: str) -> str:
    return f"pileus-{name}"


def _namespace_path(name: str) -> Path:
    return Path("/run/netns") / _namespace(name)


def _outer(name: str, index: int) -> str:
    """The host's end of a veth pair: r<vm id>-eth0 would not fit into 15 characters for every id."""
    return f"r{number_of(name)}-{index}"


async def _mtu(bridge: str) -> int:
    links = msgspec.json.decode(await programs.run(["ip", "-j", "link", "show", "dev", bridge]), type=list[_Link])
    return links[0].mtu


class _Link(msgspec.Struct):
    mtu: int
