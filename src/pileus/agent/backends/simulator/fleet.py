"""A fleet: from one to tens of thousands of simulated hosts in one agent process, made as a server wants them.

A host is a few hundred bytes until something is asked of it; then it gets the same executor and backend as any other.
All hosts share one world, so guests and volumes of a pool are seen from all of them, and one journal in memory: like
their guests, hosts of a fleet do not outlive their process.
"""

import asyncio
import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pileus.agent.backend import Noticed
from pileus.agent.backends.simulator.backend import Pace, SimulatorBackend, simulated_host
from pileus.agent.backends.simulator.faults import Clock, RunningClock
from pileus.agent.backends.simulator.world import World
from pileus.agent.host import Host, RoutingHost
from pileus.agent.journal import Journal
from pileus.wire.messages import HostFacts, HostIntro, HostKind, HostStats, WantedHost

MOST = 50_000
_NETWORK = ipaddress.IPv4Network("10.128.0.0/9")


@dataclass(frozen=True)
class Means:
    """What each host of a fleet has."""

    cpus: int = 16
    cpu_mhz: int = 2400
    memory_bytes: int = 64 << 30


class _Member:
    """One host. `host` and `backend` are made when it is first asked for something."""

    __slots__ = ("address", "backend", "host", "name")

    def __init__(self, wanted: WantedHost) -> None:
        self.name = wanted.name
        self.address = address_of(wanted)
        self.host: RoutingHost | None = None
        self.backend: SimulatorBackend | None = None


class SimulatedFleet:
    """The hosts of this process. Belongs to one event loop."""

    def __init__(
        self,
        journal: Journal,
        *,
        most: int = MOST,
        means: Means | None = None,
        pace: Pace | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.world = World()
        self._journal = journal
        self._most = most
        self._means = means or Means()
        self._pace = pace or Pace()
        self._clock = clock or RunningClock()
        self._members: dict[str, _Member] = {}
        self._noticed: Callable[[str], Noticed] | None = None
        self._told: set[str] = set()
        """Hosts whose load was told and is not idle."""
        self._back: asyncio.Queue[str] = asyncio.Queue()

    @property
    def room(self) -> int:
        return max(0, self._most - len(self._members))

    @property
    def uuids(self) -> list[str]:
        return list(self._members)

    def name_of(self, uuid: str) -> str:
        """The name under which the host was added."""
        return self._members[uuid].name

    def bind(self, noticed: Callable[[str], Noticed]) -> None:
        self._noticed = noticed

    def make(self, wanted: Sequence[WantedHost]) -> None:
        for each in wanted:
            if each.uuid not in self._members:
                self._members[each.uuid] = _Member(each)

    def let_go(self, uuids: Iterable[str]) -> None:
        for uuid in uuids:
            if self._members.pop(uuid, None) is not None:
                self.world.hosts.pop(uuid, None)
                self._told.discard(uuid)

    def come_anew(self, uuids: Iterable[str]) -> None:
        for uuid in uuids:
            self._back.put_nowait(uuid)

    async def host(self, uuid: str) -> Host | None:
        return await self._woken(uuid)

    async def intros(self, uuids: Sequence[str]) -> tuple[HostIntro, ...]:
        intros = []
        for uuid in uuids:
            member = self._members.get(uuid)
            if member is None:
                continue
            if member.host is not None:
                intros.append(await member.host.intro())
            else:
                intros.append(HostIntro(uuid, HostKind.ROUTING, self._facts(member)))
        return tuple(intros)

    def silent(self) -> tuple[str, ...]:
        return ()

    async def returned(self) -> list[str]:
        back = [await self._back.get()]
        while not self._back.empty():
            back.append(self._back.get_nowait())
        return back

    async def stats(self) -> list[HostStats]:
        stats = []
        for uuid, simulated in list(self.world.hosts.items()):
            member = self._members[uuid]
            if member.backend is not None and (simulated.guests or uuid in self._told):
                stats.append(await member.backend.stats(uuid))
                (self._told.add if simulated.guests else self._told.discard)(uuid)
        return stats

    async def _woken(self, uuid: str) -> RoutingHost | None:
        member = self._members.get(uuid)
        if member is None:
            return None
        if member.host is None:
            means = self._means
            host = simulated_host(
                uuid, cpus=means.cpus, cpu_mhz=means.cpu_mhz, memory_bytes=means.memory_bytes, address=member.address
            )
            member.backend = SimulatorBackend(self.world, host, clock=self._clock, pace=self._pace)
            made = RoutingHost(uuid, member.backend, self._journal)
            if self._noticed is not None:
                await made.open(self._noticed(uuid))
            member.host = made
        return member.host

    def _facts(self, member: _Member) -> HostFacts:
        means = self._means
        return HostFacts("Simulator", "1", member.address, means.cpus, means.cpu_mhz, means.memory_bytes)


def simulated_fleet(journal: Journal, options: Mapping[str, Any]) -> SimulatedFleet:
    """A fleet as an agent's configuration describes it. Raises ValueError for options of another name or kind.

    Options: most, cpus, cpu_mhz, memory_mib, seed, call_seconds, shut_down_seconds.
    """
    left = dict(options)
    usual = Means()
    means = Means(
        cpus=int(left.pop("cpus", usual.cpus)),
        cpu_mhz=int(left.pop("cpu_mhz", usual.cpu_mhz)),
        memory_bytes=int(left.pop("memory_mib", usual.memory_bytes >> 20)) << 20,
    )
    pace = Pace(
        call=float(left.pop("call_seconds", 0.0)),
        shut_down=float(left.pop("shut_down_seconds", 2.0)),
        seed=str(left.pop("seed", "0")),
    )
    most = int(left.pop("most", MOST))
    if left:
        raise ValueError(f"a fleet knows no option {', '.join(sorted(left))}")
    if not 1 <= most <= MOST or min(means.cpus, means.cpu_mhz, means.memory_bytes) < 1:
        raise ValueError(f"most must be 1 to {MOST}, and cpus, cpu_mhz and memory_mib positive")
    return SimulatedFleet(journal, most=most, means=means, pace=pace)


def address_of(wanted: WantedHost) -> str:
    """The host's name if it is an IP address, else one made from its UUID: the same after every start."""
    try:
        return str(ipaddress.ip_address(wanted.name))
    except ValueError:
        digest = hashlib.blake2b(wanted.uuid.encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big") % (_NETWORK.num_addresses - 2) + 1
        return str(_NETWORK[number])
