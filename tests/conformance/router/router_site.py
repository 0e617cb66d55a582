"""A router that a whole module of tests shares, with two guests that listen: each test declares another config."""

import asyncio
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from router_world import (
    DB,
    DB_DATA,
    OUTSIDE_IP,
    PUBLIC_IP,
    ROUTER_IP,
    WEB,
    WEB_DATA,
    Guest,
    RunningRouter,
    World,
    config,
    reaches,
    run,
    socket_in,
)

from pileus.agent.backends.kvm import router_control
from pileus.sandbox.watchdog import Watchdog
from pileus.wire.appliance import RouterCounters, Status
from pileus.wire.operations import RouterFacts
from pileus.wire.router import FirewallRule, PublicAddress, RouterConfig

SECOND_IP = "203.0.113.11"
THIRD_IP = "203.0.113.12"
SILENCE_SECONDS = 0.5
"""How long a packet that must not arrive is waited for, where all machines are namespaces of this one."""
OFFICE_IP = "192.0.2.9"
SOURCE_NAT = PublicAddress(PUBLIC_IP, 24, OUTSIDE_IP, source_nat=True)
PUBLIC = (SOURCE_NAT, PublicAddress(SECOND_IP, 24, OUTSIDE_IP), PublicAddress(THIRD_IP, 24, OUTSIDE_IP))
SERVICES = ("dhcp", "dns", "gateway", "source-nat", "user-data", "firewall", "static-nat", "port-forwarding")
PING = FirewallRule("ping", PUBLIC_IP, "icmp", icmp_type=8, icmp_code=0)

_ECHO = struct.Struct("!BBHHH")


@dataclass
class Site:
    """The router, its guests `web` and `db`, and clients outside at OUTSIDE_IP and OFFICE_IP."""

    world: World
    router: RunningRouter
    web: Guest
    db: Guest
    generation: int = 0
    wanted: RouterConfig = field(default_factory=config)

    def declare(self, **changes: object) -> RouterFacts:
        """Have the router apply a config that is the site's usual one but for `changes`."""
        self.generation += 1
        usual: dict[str, object] = {
            "services": SERVICES,
            "public": PUBLIC,
            "leases": (WEB, DB),
            "guests": (WEB_DATA, DB_DATA),
        }
        self.wanted = config(self.generation, **{**usual, **changes})
        return self.router.configure(self.wanted)

    def counters(self) -> RouterCounters:
        """What the router says of itself."""
        path = self.router.state / self.world.router_name / "control"
        reply = self.router.runner.run(router_control.ask(path, Status(), 10))
        assert reply.counters is not None
        return reply.counters

    def listed(self, kind: str, name: str) -> str:
        """A set or map as it is in the kernel."""
        inside = ["ip", "netns", "exec", self.world.router_namespace]
        return run(*inside, "nft", "list", kind, "ip", "pileus", name)

    def marks(self) -> set[str]:
        """What lets connections in, in the kernel."""
        return {word for word in self.listed("set", "let_in").replace(",", " ").split() if word.startswith("0x")}


@contextmanager
def site(directory: Path, watchdog: Watchdog) -> Iterator[Site]:
    """Make the site, and take it away again."""
    world = World(directory)
    for pattern in world.names:
        watchdog.network(pattern)
    state = directory / "routers"
    try:
        world.make()
        run("ip", "-n", world.outside, "addr", "add", f"{OFFICE_IP}/32", "dev", "lo")
        guests: list[Guest] = []
        for lease in (WEB, DB):
            guest = world.guest(lease.mac)
            run("ip", "-n", guest.namespace, "addr", "add", f"{lease.ip}/24", "dev", "eth0")
            run("ip", "-n", guest.namespace, "route", "add", "default", "via", ROUTER_IP)
            guests.append(guest)
        with asyncio.Runner() as runner:
            router = RunningRouter(world, state, runner)
            try:
                router.start(config(0))
                yield Site(world, router, guests[0], guests[1])
            finally:
                router.remove()
        assert world.traces() == []
        assert list(state.iterdir()) == []
    finally:
        world.unmake()


def closed(namespace: str, ip: str, port: int, source: str = "") -> bool:
    """Does no TCP connection come about?"""
    return not reaches(namespace, ip, port, source, SILENCE_SECONDS)


def silent(namespace: str, ip: str, source: str = "") -> bool:
    """Is an echo request not answered?"""
    return not pings(namespace, ip, source, SILENCE_SECONDS)


def pings(namespace: str, ip: str, source: str = "", seconds: float = 10) -> bool:
    """Is one echo request answered?"""
    with Pinger(namespace, ip, source, seconds) as pinger:
        return pinger.once()


class Pinger:
    """Echo requests with numbers, one after the other's answer, until told to end."""

    def __init__(self, namespace: str, ip: str, source: str = "", seconds: float = 10) -> None:
        self._socket = socket_in(namespace, protocol=socket.IPPROTO_ICMP, kind=socket.SOCK_RAW, seconds=seconds)
        if source:
            self._socket.bind((source, 0))
        self._socket.connect((ip, 0))
        self._number = 0
        self._id = id(self) >> 4 & 0xFFFF
        self.answered = 0
        self.lost: list[int] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._go_on)

    def __enter__(self) -> "Pinger":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._socket.close()

    def start(self) -> None:
        """Go on pinging in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Let the request on its way be the last."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()

    def once(self) -> bool:
        """One request; True when its own answer comes."""
        self._number += 1
        self._socket.send(_echo(self._id, self._number & 0xFFFF))
        with suppress(TimeoutError):
            while True:
                answer = self._socket.recv(2048)[20:]
                kind, _, _, ident, number = _ECHO.unpack_from(answer)
                if (kind, ident, number) == (0, self._id, self._number & 0xFFFF):
                    return True
        return False

    def _go_on(self) -> None:
        while not self._end.is_set():
            if self.once():
                self.answered += 1
            else:
                self.lost.append(self._number)


def _echo(ident: int, number: int) -> bytes:
    total = sum(struct.unpack("!4H", _ECHO.pack(8, 0, 0, ident, number)))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return _ECHO.pack(8, 0, ~total & 0xFFFF, ident, number)
