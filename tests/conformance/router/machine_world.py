"""A host with both kinds of routers on it, a guest network of its backend, and the world outside."""

import asyncio
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from router_world import (
    GUEST_NETWORK,
    INTERNET_IP,
    LEASE_SCRIPT,
    OUTSIDE_IP,
    PUBLIC_IP,
    PUBLIC_NETWORK,
    ROUTER_IP,
    Guest,
    run,
)

from pileus.sandbox import SandboxHost
from pileus.wire.messages import VmSeen
from pileus.wire.operations import RouterFacts, RouterMachine, RouterSpec
from pileus.wire.places import NicSpec
from pileus.wire.router import RouterConfig

BACKEND = "pileus.agent.backends.kvm:create"
GUEST_BRIDGE, PUBLIC_BRIDGE = f"brvx{GUEST_NETWORK.tag}", "pub0"
NAME = "r-77-VM"
UUID = "5f0c7a4e-0000-4000-8000-000000000077"
RATE_MBPS = 50


@dataclass
class Site:
    """Namespaces on the bridges of a host in namespaces."""

    host: SandboxHost
    directory: Path
    tag: str
    _made: list[str] = field(default_factory=list)

    @property
    def outside(self) -> str:
        return f"t{self.tag}-out"

    @property
    def names(self) -> tuple[str, ...]:
        """Shell patterns of everything that may be made here."""
        return (f"t{self.tag}-*",)

    def make(self) -> None:
        self.join(self.outside, PUBLIC_BRIDGE, "02:00:00:00:ff:01")
        run("ip", "-n", self.outside, "addr", "add", f"{OUTSIDE_IP}/24", "dev", "eth0")
        run("ip", "-n", self.outside, "addr", "add", f"{INTERNET_IP}/32", "dev", "lo")

    def guest(self, mac: str) -> Guest:
        name = f"t{self.tag}-g{len(self._made)}"
        self.join(name, GUEST_BRIDGE, mac)
        script = self.directory / "lease.sh"
        script.write_text(LEASE_SCRIPT)
        script.chmod(0o755)
        return Guest(name, mac, self.directory / f"{name}.lease", script)

    def join(self, namespace: str, bridge: str, mac: str) -> None:
        self._made.append(namespace)
        outer = f"t{self.tag}-{len(self._made)}"
        run("ip", "netns", "add", namespace)
        peer = ["peer", "name", "eth0", "address", mac, "netns", namespace]
        run("ip", "-n", self.host.netns, "link", "add", outer, "type", "veth", *peer)
        run("ip", "-n", self.host.netns, "link", "set", outer, "master", bridge, "up")
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")

    def unmake(self) -> None:
        for namespace in self._made:
            run("ip", "netns", "del", namespace, check=False)


def spec(machine: RouterMachine | None, epoch: int) -> RouterSpec:
    """One life of the router, in a machine or in a namespace."""
    guest = NicSpec("02:00:00:00:01:01", ROUTER_IP, 24, GUEST_NETWORK, 0, default=False)
    public = NicSpec(
        "02:00:00:00:01:02", PUBLIC_IP, 24, PUBLIC_NETWORK, 1, gateway=OUTSIDE_IP, rate_mbps=RATE_MBPS
    )  # fmt: skip
    return RouterSpec(NAME, UUID, epoch, (guest, public), machine=machine)


class Resident:
    """One router on the host by way of its backend, spoken to without asyncio; the loop turns in a thread."""

    def __init__(self, open_backend: Callable[[], Any], machine: RouterMachine | None) -> None:
        self.machine = machine
        self.epoch = 0
        self._open_backend = open_backend
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._context: Any = None
        self._backend: Any = None

    def open(self) -> None:
        """A new agent on the same state."""
        self.wait(self._enter())

    def close(self) -> None:
        """The agent ends."""
        self.wait(self._leave())

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def wait(self, call: Any, seconds: float = 400) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(seconds)

    def start(self, wanted: RouterConfig, *, epoch: int | None = None) -> RouterFacts:
        self.epoch = self.epoch if epoch is None else epoch
        facts: RouterFacts = self.wait(self._backend.start_router(spec(self.machine, self.epoch), wanted))
        return facts

    def configure(self, wanted: RouterConfig) -> RouterFacts:
        facts: RouterFacts = self.wait(self._backend.configure_router(NAME, wanted))
        return facts

    def remove(self) -> None:
        self.wait(self._backend.remove_router(NAME))

    def unplug(self) -> None:
        self.wait(self._backend.unplug_network(GUEST_NETWORK))

    def seen(self) -> list[VmSeen]:
        return [one for one in self.wait(self._backend.inventory()) if one.router]

    def networks(self) -> object:
        return self.wait(self._backend.networks_of(NAME))

    async def _enter(self) -> None:
        self._context = self._open_backend()
        self._backend = await self._context.__aenter__()
        await self._backend.open(_unheard)

    async def _leave(self) -> None:
        await self._backend.close()
        await self._context.__aexit__(None, None, None)


def files_below(directory: Path) -> list[str]:
    """What of routers is left in a host's state directory; templates stay for the next router."""
    places = [directory / "routers", directory / "router-machines"]
    return [str(path) for place in places if place.exists() for path in sorted(place.iterdir())]


def devices_of(host: SandboxHost) -> list[str]:
    """Links of the router on the host, and the ones that limit them."""
    names = [link["ifname"] for link in msgspec.json.decode(host.run(["ip", "-j", "link", "show"]))]
    number = NAME.split("-")[1]
    return [name for name in names if name.startswith((f"r{number}-", f"t{number}n", f"f{number}n"))]


def tag() -> str:
    return f"{os.getpid() % 100000}m"


def _unheard(*what: object) -> None:
    """Nothing that happens unasked matters here."""
