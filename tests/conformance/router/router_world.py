"""A guest network, its router and the world outside, in namespaces of this machine: what the router tests stand on."""

import asyncio
import ctypes
import itertools
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pileus.agent.backends.kvm.router_namespace import NamespaceRouters
from pileus.wire.operations import RouterFacts, RouterSpec
from pileus.wire.places import Isolation, NetworkRef, NicSpec, Traffic
from pileus.wire.router import GuestData, Lease, PortForward, PublicAddress, RouterConfig

CLONE_NEWNET = 0x40000000
ROUTER_IP = "10.1.1.1"
PUBLIC_IP = "203.0.113.10"
OUTSIDE_IP = "203.0.113.1"
INTERNET_IP = "198.51.100.7"
DOMAIN = "cs2.cloud.internal"
GUEST_NETWORK = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 500)
PUBLIC_NETWORK = NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0)
PATIENCE_SECONDS = 20.0
SILENCE_SECONDS = 1.0
"""How long a packet that must not arrive is waited for."""

LEASE_SCRIPT = """#!/bin/sh
case $1 in bound|renew)
ip addr flush dev $interface
ip addr add $ip/${mask} dev $interface
[ -n "$router" ] && ip route replace default via $router dev $interface
{ echo ip=$ip; echo mask=$mask; echo router=$router; echo dns=$dns; echo domain=$domain; echo hostname=$hostname
echo mtu=$mtu; echo server=$serverid; } >"$LEASE_FILE" ;;
esac
"""

_numbers = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


def run(*argv: str, check: bool = True, seconds: float = 30, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds, check=False, env=env)
    if check and done.returncode != 0:
        raise AssertionError(f"{argv}: {done.stderr or done.stdout}")
    return done.stdout


def until(what: Callable[[], bool], message: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    tick = threading.Event()
    while not what():
        assert time.monotonic() < deadline, message
        tick.wait(0.02)


def socket_in(
    namespace: str,
    kind: socket.SocketKind = socket.SOCK_STREAM,
    seconds: float = 10,
    *,
    frames_of: int = 0,
    protocol: int = 0,
) -> socket.socket:
    """A socket of a network namespace; it stays one wherever it is used. With `frames_of`, of this Ethernet type."""
    made: list[socket.socket] = []

    def enter() -> None:
        with open(f"/run/netns/{namespace}", "rb") as file:
            assert _libc.setns(file.fileno(), CLONE_NEWNET) == 0
        if frames_of:
            made.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(frames_of)))
        else:
            made.append(socket.socket(socket.AF_INET, kind, protocol))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    made[0].settimeout(seconds)
    return made[0]


@dataclass
class Guest:
    """A machine on the guest network with one card."""

    namespace: str
    mac: str
    lease_file: Path
    script: Path

    def take_lease(self) -> dict[str, str]:
        """Ask for a lease and use it; {} when nobody offers one."""
        self.lease_file.unlink(missing_ok=True)
        ask = ["busybox", "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "4", "-T", "1", "-O", "mtu"]
        env = {"PATH": os.environ["PATH"], "LEASE_FILE": str(self.lease_file)}
        run("ip", "netns", "exec", self.namespace, *ask, "-s", str(self.script), check=False, env=env)
        if not self.lease_file.exists():
            return {}
        return dict(line.split("=", 1) for line in self.lease_file.read_text().splitlines())

    def get(self, path: str, port: int = 80, ip: str = ROUTER_IP, **headers: str) -> tuple[int, bytes]:
        """GET from the router: status and body."""
        with socket_in(self.namespace) as connection:
            connection.connect((ip, port))
            lines = [f"GET {path} HTTP/1.1", f"Host: {ip}", *(f"{name}: {value}" for name, value in headers.items())]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            answer = b""
            while data := connection.recv(65536):
                answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def password(self, word: str) -> str:
        return self.get("/", 8080, DomU_Request=word)[1].decode()

    def resolve(self, name: str) -> str:
        """What nslookup says about the name, asked of the router."""
        ask = ["timeout", "10", "busybox", "nslookup", "-type=a", name, ROUTER_IP]
        return run("ip", "netns", "exec", self.namespace, *ask, check=False)


def listening(namespace: str, port: int, ip: str = "0.0.0.0") -> socket.socket:
    server = socket_in(namespace)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((ip, port))
    server.listen()
    return server


def connected(namespace: str, ip: str, port: int, seconds: float = 10, source: str = "") -> socket.socket:
    client = socket_in(namespace, seconds=seconds)
    try:
        if source:
            client.bind((source, 0))
        client.connect((ip, port))
    except OSError:
        client.close()
        raise
    return client


def reaches(namespace: str, ip: str, port: int, source: str = "", seconds: float = SILENCE_SECONDS) -> bool:
    """Does a TCP connection come about? Silence and refusal are both no."""
    try:
        connected(namespace, ip, port, seconds, source).close()
    except OSError:
        return False
    return True


@dataclass
class World:
    """Two bridges in the namespace of the test; "outside" with the public gateway and an address far away."""

    directory: Path
    number: int = field(default_factory=lambda: next(_numbers))
    _made: list[str] = field(default_factory=list)

    @property
    def tag(self) -> str:
        return f"{os.getpid() % 100000}x{self.number}"

    @property
    def bridges(self) -> tuple[str, str]:
        return f"tg{self.tag}", f"tp{self.tag}"

    @property
    def outside(self) -> str:
        return f"t{self.tag}-out"

    @property
    def router_name(self) -> str:
        return f"r-{os.getpid() % 100000}{self.number:03}-VM"

    @property
    def router_namespace(self) -> str:
        return f"pileus-{self.router_name}"

    @property
    def names(self) -> tuple[str, ...]:
        """Shell patterns of everything that may be made here."""
        number = self.router_name.split("-")[1]
        return f"t{self.tag}-*", f"t[gpt]{self.tag}", f"r{number}-*", self.router_namespace

    def make(self) -> None:
        for bridge in self.bridges:
            run("ip", "link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
            run("ip", "link", "set", bridge, "up")
        self._join(self.outside, self.bridges[1], "02:00:00:00:ff:01")
        run("ip", "-n", self.outside, "addr", "add", f"{OUTSIDE_IP}/24", "dev", "eth0")
        run("ip", "-n", self.outside, "addr", "add", f"{INTERNET_IP}/32", "dev", "lo")

    def guest(self, mac: str) -> Guest:
        name = f"t{self.tag}-g{len(self._made)}"
        self._join(name, self.bridges[0], mac)
        script = self.directory / "lease.sh"
        script.write_text(LEASE_SCRIPT)
        script.chmod(0o755)
        return Guest(name, mac, self.directory / f"{name}.lease", script)

    def _join(self, namespace: str, bridge: str, mac: str) -> None:
        self._made.append(namespace)
        run("ip", "netns", "add", namespace)
        outer = f"t{self.tag}-{len(self._made)}"
        peer = ["peer", "name", "eth0", "address", mac, "netns", namespace]
        run("ip", "link", "add", outer, "type", "veth", *peer)
        run("ip", "link", "set", outer, "master", bridge, "up")
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        run("ip", "-n", namespace, "link", "set", "eth0", "up")

    def unmake(self) -> None:
        for namespace in self._made:
            run("ip", "netns", "del", namespace, check=False)
        for bridge in self.bridges:
            run("ip", "link", "del", bridge, check=False)

    def spec(self, epoch: int = 1, *, rate_mbps: int = 0) -> RouterSpec:
        guest = NicSpec("02:00:00:00:01:01", ROUTER_IP, 24, GUEST_NETWORK, 0, default=False)
        public = NicSpec("02:00:00:00:01:02", PUBLIC_IP, 24, PUBLIC_NETWORK, 1, gateway=OUTSIDE_IP, rate_mbps=rate_mbps)
        return RouterSpec(self.router_name, "5f0c7a4e-0000-4000-8000-000000000001", epoch, (guest, public))

    def rules(self) -> str:
        """The router's packet filter and NAT as they are in the kernel, without what was counted."""
        return run("ip", "netns", "exec", self.router_namespace, "nft", "--stateless", "list", "ruleset")

    def pids(self, program: str) -> list[int]:
        """Processes in the router's namespace that run the program, or the Python module, called so."""
        found = []
        for word in run("ip", "netns", "pids", self.router_namespace, check=False).split():
            with suppress(FileNotFoundError):
                arguments = Path(f"/proc/{word}/cmdline").read_text().split("\0")
                if program in (Path(arguments[0]).name, *arguments[1:]):
                    found.append(int(word))
        return found

    def traces(self) -> list[str]:
        """What is left of the router on this machine."""
        names = re.findall(rf"\S*{re.escape(self.router_name)}\S*", run("ip", "netns", "list"))
        number = self.router_name.split("-")[1]
        return names + re.findall(rf"r{number}-\d", run("ip", "link"))


class RunningRouter:
    """The launcher under test, and the one router of the world, spoken to without asyncio."""

    def __init__(self, world: World, state: Path, runner: asyncio.Runner) -> None:
        self.world = world
        self.state = state
        self.runner = runner
        self.launcher = NamespaceRouters(state)

    def start(self, wanted: RouterConfig | None = None, epoch: int = 1, *, rate_mbps: int = 0) -> RouterFacts:
        spec = self.world.spec(epoch, rate_mbps=rate_mbps)
        return self.runner.run(self.launcher.start(spec, wanted or config(), self.world.bridges))

    def configure(self, wanted: RouterConfig) -> RouterFacts:
        return self.runner.run(self.launcher.configure(self.world.router_name, wanted))

    def remove(self) -> None:
        self.runner.run(self.launcher.remove(self.world.router_name))

    def forget(self) -> None:
        """As if the agent had been restarted: a new launcher on the same state."""
        self.launcher = NamespaceRouters(self.state)


@contextmanager
def name_server(world: World) -> Iterator[None]:
    """A name server outside that knows www.example.test."""
    pid_file = world.directory / "outside.pid"
    options = ["--no-hosts", "--no-resolv", "--bind-interfaces", f"--listen-address={OUTSIDE_IP}", "--user=root"]
    names = [f"--address=/www.example.test/{INTERNET_IP}", f"--pid-file={pid_file}", "--conf-file=/dev/null"]
    server = subprocess.Popen(["ip", "netns", "exec", world.outside, "dnsmasq", "-k", *options, *names])
    try:
        until(pid_file.exists, "the name server outside does not start")
        yield
    finally:
        server.terminate()
        server.wait()


def config(generation: int = 1, **changes: object) -> RouterConfig:
    """A network with one guest, `web`; `changes` replace fields."""
    fields: dict[str, object] = {
        "network": "5f0c7a4e-0000-4000-8000-0000000000aa",
        "generation": generation,
        "guest_ip": ROUTER_IP,
        "guest_prefix": 24,
        "domain": DOMAIN,
        "dns": (OUTSIDE_IP,),
        "leases": (WEB,),
        "guests": (WEB_DATA,),
        "public": (PublicAddress(PUBLIC_IP, 24, OUTSIDE_IP, source_nat=True),),
    }
    return RouterConfig(**{**fields, **changes})


WEB = Lease("02:00:00:00:00:05", "10.1.1.5", "web")
DB = Lease("02:00:00:00:00:06", "10.1.1.6", "db")
WEB_DATA = GuestData(
    "10.1.1.5",
    {"instance-id": "i-2-5-VM", "local-ipv4": "10.1.1.5", "service-offering": "Small Instance"},
    user_data="aGVsbG8K/w==",
    password="s3cret:Pw",
    password_id="p1",
)
DB_DATA = GuestData("10.1.1.6", {"instance-id": "i-2-6-VM", "local-ipv4": "10.1.1.6"})
TO_WEB = PortForward("f1", PUBLIC_IP, "tcp", 8001, 8001, "10.1.1.5", 80, 80)
TO_WEB_RANGE = PortForward("f2", PUBLIC_IP, "tcp", 9000, 9010, "10.1.1.5", 9000, 9010)
