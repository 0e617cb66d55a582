"""A fleet: from one to tens of thousands of simulated hosts in one agent process, made as a server wants them.

A host is a few hundred bytes until something is asked of it; then it gets the same executor and backend as any other.
All hosts share one world, so guests and volumes of a pool are seen from all of them, and one journal in memory: like
their guests, hosts of a fleet do not outlive their process.
"""

import asyncio
import hashlib
import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import structlog

from pileus.agent.backend import Noticed
from pileus.agent.backends.simulator.backend import Pace, SimulatorBackend, simulated_host
from pileus.agent.backends.simulator.desk import Desk
from pileus.agent.backends.simulator.faults import Clock, RunningClock
from pileus.agent.backends.simulator.mishaps import MishapHost, Mishaps
from pileus.agent.backends.simulator.world import World
from pileus.agent.host import Host
from pileus.agent.journal import Journal
from pileus.wire.messages import Answer, HostFacts, HostIntro, HostKind, HostStats, VmChange, WantedHost
from pileus.wire.orders import Order, Orders, read_orders
from pileus.wire.simulated import BadBehaviour, Behaviour, behaviour, is_setting

log = structlog.get_logger(__name__)

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

    __slots__ = ("address", "backend", "host", "name", "settings")

    def __init__(self, wanted: WantedHost) -> None:
        self.name = wanted.name
        self.address = address_of(wanted)
        self.settings = wanted.settings
        self.host: MishapHost | None = None
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
        settings: Mapping[str, str] | None = None,
        orders: Path | None = None,
        begins: tuple[Order, ...] = (),
    ) -> None:
        """`settings` say how hosts behave that were not added with settings of their own, and are beneath those.

        What is dropped into the directory `orders` while the fleet runs, happens, and what `begins` counts from its
        start. Raises `BadBehaviour`.
        """
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
        self._settings: dict[str, str] = dict(settings or {})
        self._behaviours: dict[str, Behaviour] = {"": behaviour(self._settings)}
        self.mishaps = Mishaps(self, self._clock, seed=self._pace.seed, back=self._back.put_nowait)
        self._desk = None if orders is None else Desk(orders, self._clock, self.take)
        self._restless: list[tuple[Behaviour, list[str]]] | None = None
        """Put together when it is asked for, after hosts or settings have changed."""
        self._begins = Orders(mishaps=begins)
        self._later: set[asyncio.Task[None]] = set()

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
        self._restless = None

    def let_go(self, uuids: Iterable[str]) -> None:
        for uuid in uuids:
            if self._members.pop(uuid, None) is not None:
                self.world.hosts.pop(uuid, None)
                self.mishaps.forget(uuid)
                self._told.discard(uuid)
        self._restless = None

    def come_anew(self, uuids: Iterable[str]) -> None:
        for uuid in uuids:
            self._back.put_nowait(uuid)

    async def host(self, uuid: str) -> Host | None:
        if self.mishaps.is_away(uuid):
            return None
        return await self._woken(uuid)

    async def intros(self, uuids: Sequence[str]) -> tuple[HostIntro, ...]:
        intros = []
        for uuid in uuids:
            member = self._members.get(uuid)
            if member is None or self.mishaps.is_away(uuid):
                continue
            if member.host is not None:
                intros.append(await member.host.intro())
            else:
                intros.append(HostIntro(uuid, HostKind.ROUTING, self._facts(member)))
        return tuple(intros)

    def is_away(self, uuid: str) -> bool:
        return self.mishaps.is_away(uuid)

    async def tell(self, answer: Answer) -> int:
        return await self.mishaps.tell(answer.host, answer.operation_id)

    async def run(self) -> None:
        self.take(self._begins)
        desk = [] if self._desk is None else [self._desk.run()]
        try:
            await asyncio.gather(self.mishaps.run(), *desk)
        finally:
            for task in self._later:
                task.cancel()

    def silent(self) -> tuple[str, ...]:
        return self.mishaps.away

    # ---- what goes wrong

    def behaviour_of(self, uuid: str) -> Behaviour:
        """How the host behaves: as the fleet does, and as it was added."""
        member = self._members.get(uuid)
        text = "" if member is None else member.settings
        known = self._behaviours.get(text)
        if known is None:
            try:
                known = behaviour(dict(parse_qsl(text)), on=self._behaviours[""])
            except BadBehaviour as error:
                log.error("host.bad_settings", host=uuid, reason=str(error))
                known = self._behaviours[""]
            self._behaviours[text] = known
        return known

    @property
    def restless(self) -> list[tuple[Behaviour, list[str]]]:
        """Hosts to which things happen by rate, by how they behave."""
        if self._restless is None:
            by_settings: defaultdict[str, list[str]] = defaultdict(list)
            for uuid, member in self._members.items():
                by_settings[member.settings].append(uuid)
            groups = [(self.behaviour_of(uuids[0]), uuids) for uuids in by_settings.values()]
            self._restless = [(behaves, uuids) for behaves, uuids in groups if behaves.restless]
        return self._restless

    def backend_of(self, uuid: str) -> SimulatorBackend | None:
        """The host's hypervisor; None while nothing has been asked of it."""
        member = self._members.get(uuid)
        return None if member is None else member.backend

    def take(self, orders: Orders) -> None:
        """Do this from now on, and let that happen when its time has come."""
        if orders.settings:
            self._settings |= orders.settings
            self._behaviours = {"": behaviour(self._settings)}
            self._restless = None
            log.info("fleet.behaves", **orders.settings)
        for number, order in enumerate(orders.mishaps):
            task = asyncio.get_running_loop().create_task(self._happen(order, number))
            self._later.add(task)
            task.add_done_callback(self._later.discard)

    async def _happen(self, order: Order, number: int) -> None:
        if order.after > 0:
            await self._clock.sleep(order.after)
        at = str(self._clock.now())
        meant = [
            uuid
            for uuid, member in self._members.items()
            if order.about(member.name, self.mishaps.chance("order", at, str(number), member.name))
        ]
        struck = self.mishaps.befall(order.what, meant, seconds=order.seconds)
        log.info("fleet.mishap", what=order.what, hosts=struck, of=len(meant), seconds=order.seconds)

    async def returned(self) -> list[str]:
        back = [await self._back.get()]
        while not self._back.empty():
            back.append(self._back.get_nowait())
        return back

    async def stats(self) -> list[HostStats]:
        stats = []
        for uuid, simulated in list(self.world.hosts.items()):
            member = self._members[uuid]
            if self.mishaps.is_away(uuid):
                continue
            if member.backend is not None and (simulated.guests or uuid in self._told):
                stats.append(await member.backend.stats(uuid))
                (self._told.add if simulated.guests else self._told.discard)(uuid)
        return stats

    def _within_reach(self, uuid: str, noticed: Noticed) -> Noticed:
        def tell(name: str, guest: str, epoch: int, change: VmChange) -> None:
            if not self.mishaps.is_away(uuid):  # Else the server hears it when the host is introduced anew.
                noticed(name, guest, epoch, change)

        return tell

    async def _woken(self, uuid: str) -> MishapHost | None:
        member = self._members.get(uuid)
        if member is None:
            return None
        if member.host is None:
            means = self._means
            host = simulated_host(
                uuid, cpus=means.cpus, cpu_mhz=means.cpu_mhz, memory_bytes=means.memory_bytes, address=member.address
            )
            member.backend = SimulatorBackend(self.world, host, clock=self._clock, pace=self._pace)
            made = MishapHost(uuid, member.backend, self._journal, self.mishaps)
            if self._noticed is not None:
                await made.open(self._within_reach(uuid, self._noticed(uuid)))
            member.host = made
        return member.host

    def _facts(self, member: _Member) -> HostFacts:
        means = self._means
        return HostFacts("Simulator", "1", member.address, means.cpus, means.cpu_mhz, means.memory_bytes)


def simulated_fleet(journal: Journal, options: Mapping[str, Any], *, clock: Clock | None = None) -> SimulatedFleet:
    """A fleet as an agent's configuration describes it. Raises ValueError for options of another name or kind.

    Options: most, cpus, cpu_mhz, memory_mib, seed, call_seconds, shut_down_seconds; how hosts behave
    (`pileus.wire.simulated`); `orders`, a directory of what is to go wrong, and `faults`, a file of it to begin with.
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
    settings = {name: str(left.pop(name)) for name in list(left) if is_setting(name)}
    desk, file = left.pop("orders", None), left.pop("faults", None)
    try:
        begins = Orders() if file is None else read_orders(Path(str(file)).read_text())
    except OSError as error:
        raise ValueError(f"faults: {file}: {error.strerror}") from error
    if left:
        raise ValueError(f"a fleet knows no option {', '.join(sorted(left))}")
    if not 1 <= most <= MOST or min(means.cpus, means.cpu_mhz, means.memory_bytes) < 1:
        raise ValueError(f"most must be 1 to {MOST}, and cpus, cpu_mhz and memory_mib positive")
    return SimulatedFleet(
        journal,
        most=most,
        means=means,
        pace=pace,
        clock=clock,
        settings={**begins.settings, **settings},
        orders=None if desk is None else Path(str(desk)),
        begins=begins.mishaps,
    )


def address_of(wanted: WantedHost) -> str:
    """The host's name if it is an IP address, else one made from its UUID: the same after every start."""
    try:
        return str(ipaddress.ip_address(wanted.name))
    except ValueError:
        digest = hashlib.blake2b(wanted.uuid.encode(), digest_size=8).digest()
        number = int.from_bytes(digest, "big") % (_NETWORK.num_addresses - 2) + 1
        return str(_NETWORK[number])
