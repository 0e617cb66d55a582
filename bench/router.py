"""What a router's program needs for a change: from the message with the whole config to the reply.

(a) One firewall rule comes, and one goes, where there are 10,000: for one public address, ports and sources overlapping
with those of their neighbours. (b) Everything for 2,000 guests on a router that has nothing: lease, name, data, a
forward and a rule each. Times on the wall are what a caller waits; processor time is the program's own. Last line: the
whole, as one JSON object.
"""

import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pileus.agent.backends.kvm.router_namespace import NamespaceRouters
from pileus.wire.appliance import Configure, decode_reply, encode
from pileus.wire.operations import RouterSpec
from pileus.wire.places import Isolation, NetworkRef, NicSpec, Traffic
from pileus.wire.router import FirewallRule, GuestData, Lease, PortForward, PublicAddress, RouterConfig

RULES = 10_000
GUESTS = 2_000
CHANGES = 15
GOAL_CHANGE_MS = 50.0
GOAL_REBUILD_MS = 1000.0
NAME = "r-999999999-VM"
BRIDGES = ("bench-guest", "bench-public")
FIRST, SECOND = "203.0.113.10", "203.0.113.11"
SERVICES = (
    "dhcp",
    "dns",
    "gateway",
    "source-nat",
    "user-data",
    "password",
    "port-forwarding",
    "firewall",
    "static-nat",
    "load-balancing",
)
PUBLIC = (PublicAddress(FIRST, 24, "203.0.113.1", source_nat=True), PublicAddress(SECOND, 24, "203.0.113.1"))
_TICK = os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure both; the last line is the whole."""
    with tempfile.TemporaryDirectory(prefix="pileus-bench-") as folder:
        claims = [*one_rule(Path(folder) / "a"), *whole(Path(folder) / "b")]
    for claim in claims:
        print(json.dumps(claim))
    judged = [claim for claim in claims if claim["ok"] is not None]
    slowest = max(float(str(claim["value"])) / float(str(claim["goal"])) for claim in judged)
    print(json.dumps(claim_of("router", slowest, "of goal", 1.0)))
    return 0 if slowest <= 1 else 1


def one_rule(directory: Path) -> Iterator[dict[str, object]]:
    """Rules come and go one by one beside 10,000 others."""
    rules = tuple(rule(number) for number in range(RULES + CHANGES))
    with running(directory) as router:
        router.configure(config(1, firewall=rules[:RULES]))
        coming = [router.configure(config(1 + n, firewall=rules[: RULES + n])) for n in range(1, CHANGES + 1)]
        going = [router.configure(config(100 + n, firewall=rules[n:])) for n in range(1, CHANGES + 1)]
        yield from claims_of("router_rule_comes", coming, GOAL_CHANGE_MS)
        yield from claims_of("router_rule_goes", going, GOAL_CHANGE_MS)


def whole(directory: Path) -> Iterator[dict[str, object]]:
    """All of 2,000 guests at once, on routers that have just started."""
    guests = [f"10.1.{16 + number // 200}.{1 + number % 200}" for number in range(GUESTS)]
    leases = tuple(Lease(f"02:00:00:00:{n >> 8:02x}:{n & 255:02x}", ip, f"vm-{n}") for n, ip in enumerate(guests))
    data = tuple(
        GuestData(ip, {key: f"{key} of {n}" for key in METADATA}, "aGVsbG8K" * 8, f"secret{n}", f"p{n}")
        for n, ip in enumerate(guests)
    )
    forwards = tuple(PortForward(f"f{n}", FIRST, "tcp", 1000 + n, 1000 + n, ip, 22, 22) for n, ip in enumerate(guests))
    rules = tuple(FirewallRule(f"r{n}", FIRST, "tcp", 1000 + n, 1000 + n) for n in range(GUESTS))
    times = []
    for number in range(3):
        with running(directory / str(number)) as router:
            everything = config(1, leases=leases, guests=data, port_forwards=forwards, firewall=rules)
            times.append(router.configure(everything))
    yield from claims_of("router_rebuild_2000_guests", times, GOAL_REBUILD_MS)


METADATA = ("instance-id", "vm-id", "local-ipv4", "local-hostname", "public-ipv4", "service-offering", "public-keys")


def rule(number: int) -> FirewallRule:
    """Eight ports, three of which are the next rule's too; every second for everybody, the others for two networks."""
    cidrs = ("0.0.0.0/0",) if number % 2 else (f"198.{number % 200}.0.0/16", "192.0.2.0/24")
    start = 1 + number * 5
    return FirewallRule(f"5f0c7a4e-0000-4000-8000-{number:012}", FIRST, "tcp", start, start + 7, cidrs=cidrs)


def config(generation: int, **changes: object) -> RouterConfig:
    """A network of 4,096 addresses; `changes` replace fields."""
    bare = RouterConfig("bench", generation, "10.1.16.254", 20, "bench.test", services=SERVICES, public=PUBLIC)
    return msgspec.structs.replace(bare, **changes)


class Running:
    """A router's program, spoken to over its socket."""

    def __init__(self, control: Path, pid: int) -> None:
        self._control = control
        self._pid = pid

    def configure(self, wanted: RouterConfig) -> tuple[float, float]:
        """Milliseconds from the first byte of the message to the reply, and of the program's processor time."""
        line = encode(Configure(wanted)) + b"\n"
        with socket.socket(socket.AF_UNIX) as channel:
            channel.connect(str(self._control))
            busy, began = self._busy(), time.perf_counter()
            channel.sendall(line)
            answer = b""
            while not answer.endswith(b"\n"):
                answer += channel.recv(65536)
            took = (time.perf_counter() - began) * 1000
        reply = decode_reply(answer)
        if reply.refusal is not None or reply.facts is None or reply.facts.generation != wanted.generation:
            raise SystemExit(f"not applied: {reply.refusal}")
        return took, self._busy() - busy

    def _busy(self) -> float:
        """Processor time of the program and the children it has waited for, to the nanosecond for its threads."""
        total = sum(
            int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{self._pid}/task").iterdir()
        )
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return total / 1e6 + (int(fields[13]) + int(fields[14])) * 1000 / _TICK


@contextmanager
def running(directory: Path) -> Iterator[Running]:
    """A router between two bridges, with a config that has nothing."""
    routers = NamespaceRouters(directory)
    guest = NicSpec(
        "02:00:00:00:01:01", "10.1.16.254", 20, NetworkRef(Traffic.GUEST, Isolation.VXLAN, 1), 0, default=False
    )
    outer = NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0)
    public = NicSpec("02:00:00:00:01:02", FIRST, 24, outer, 1, gateway="203.0.113.1")
    spec = RouterSpec(NAME, "5f0c7a4e-0000-4000-8000-000000000001", 1, (guest, public))
    try:
        for bridge in BRIDGES:
            ip("link", "add", bridge, "type", "bridge")
            ip("link", "set", bridge, "up")
        asyncio.run(routers.start(spec, config(0), BRIDGES))
        listed = subprocess.run(["ip", "netns", "pids", f"pileus-{NAME}"], capture_output=True, text=True, check=True)
        programs = (int(word) for word in listed.stdout.split())
        pid = next(one for one in programs if b"pileus.appliance.router" in Path(f"/proc/{one}/cmdline").read_bytes())
        yield Running(directory / NAME / "control", pid)
    finally:
        asyncio.run(routers.remove(NAME))
        for bridge in BRIDGES:
            subprocess.run(["ip", "link", "del", bridge], check=False)
        shutil.rmtree(directory, ignore_errors=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def claims_of(name: str, times: list[tuple[float, float]], goal: float) -> Iterator[dict[str, object]]:
    """The median a caller waits, which is judged, and what the program worked for it."""
    yield claim_of(name, statistics.median(wall for wall, _ in times), "ms", goal)
    yield claim_of(f"{name}_processor", statistics.median(busy for _, busy in times), "ms", None)


def claim_of(name: str, value: float, unit: str, goal: float | None) -> dict[str, object]:
    ok = None if goal is None else value <= goal
    return {"name": name, "value": round(value, 2), "unit": unit, "goal": goal, "ok": ok}


if __name__ == "__main__":
    sys.exit(main())
