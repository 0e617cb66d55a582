"""What goes wrong with the hosts of a running fleet: by rate as their behaviour says, and by order, live.

Everything is decided by the fleet's seed. A host that is away answers nothing and nothing reaches it; when it is back,
it is introduced anew, with what is left on it.
"""

import functools
import hashlib
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import structlog

from pileus.agent.backend import Progressed, Refused
from pileus.agent.backends.simulator.backend import SimulatorBackend
from pileus.agent.backends.simulator.faults import Clock
from pileus.agent.host import RoutingHost, Withheld
from pileus.agent.journal import Journal
from pileus.wire.operations import (
    AnyOperation,
    AnyResult,
    AttachPool,
    CreateVolume,
    DeleteVolume,
    FetchTemplate,
    Reason,
    RebootVm,
    RemoveTemplate,
    StartVm,
)
from pileus.wire.orders import Mishap
from pileus.wire.simulated import Behaviour, Outages

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
LOST_LINE_SECONDS = 5.0
"""How soon a host whose answer was lost has another connection, over which it is asked again."""

ON_STORAGE = (AttachPool, CreateVolume, DeleteVolume, FetchTemplate, RebootVm, RemoveTemplate, StartVm)


class Hosts(Protocol):
    """The fleet, as far as mishaps go."""

    def behaviour_of(self, uuid: str) -> Behaviour: ...

    def backend_of(self, uuid: str) -> SimulatorBackend | None:
        """None while nothing has been asked of the host."""

    @property
    def restless(self) -> Sequence[tuple[Behaviour, Sequence[str]]]:
        """Hosts to which things happen by rate, by how they behave."""


class Mishaps:
    """Belongs to one event loop. `back` is called with a host that can be reached again."""

    def __init__(self, hosts: Hosts, clock: Clock, *, seed: str, back: Callable[[str], None]) -> None:
        self._hosts = hosts
        self._clock = clock
        self._seed = seed
        self._back = back
        self._dice = random.Random(f"mishaps {seed}")  # noqa: S311 (a simulation must be repeatable)
        self._away: dict[str, float] = {}
        self._outage_until: dict[str, float] = {}
        self._lives: defaultdict[str, int] = defaultdict(int)
        """How often a host has lost its power: what was under way then has no answer."""
        self._again: dict[str, float] = {}
        """Hosts whose connection is made anew at an instant."""
        self.happened: defaultdict[str, int] = defaultdict(int)
        """How often what has happened, for whoever wants to know."""

    # ---- what is true now

    def is_away(self, uuid: str) -> bool:
        """Whether the host cannot be reached."""
        return uuid in self._away

    @property
    def away(self) -> tuple[str, ...]:
        """Hosts that cannot be reached."""
        return tuple(self._away)

    def forget(self, uuid: str) -> None:
        """The host is not ours any more."""
        self._away.pop(uuid, None)
        self._outage_until.pop(uuid, None)
        self._lives.pop(uuid, None)
        self._again.pop(uuid, None)

    # ---- orders

    def befall(self, what: Mishap, uuids: Iterable[str], *, seconds: float) -> int:
        """Let it happen to these hosts now. Returns to how many it did: one that is away is not struck again."""
        return sum([self._strike(what, uuid, seconds) for uuid in uuids])

    def _strike(self, what: Mishap, uuid: str, seconds: float) -> bool:
        if uuid in self._away:
            return False
        until = self._clock.now() + seconds
        backend = self._hosts.backend_of(uuid)
        match what:
            case Mishap.DIE | Mishap.CUT:
                if what is Mishap.DIE:
                    self._lives[uuid] += 1
                    if backend is not None:
                        backend.lose_power()
                self._away[uuid] = until
                self._again.pop(uuid, None)
            case Mishap.STORAGE:
                self._outage_until[uuid] = until
            case Mishap.CRASH | Mishap.SHUTDOWN:
                running = [] if backend is None else [each for each in backend.host.guests.values() if each.running]
                # Routers have nobody inside who could turn them off.
                for guest in running:
                    if backend is not None and what is Mishap.CRASH:
                        backend.crash_guest(guest.name)
                    elif backend is not None and not guest.router:
                        backend.shut_down_inside(guest.name)
                if not running:
                    return False
        self.happened[what] += 1
        return True

    # ---- time

    async def run(self) -> None:
        """Let things happen by rate, and come to their ends. Never ends."""
        before = self._clock.now()
        while True:
            await self._clock.sleep(TICK_SECONDS)
            now = self._clock.now()
            try:
                self.tick(now - before)
            except Exception as error:
                log.error("mishaps.failed", exc_info=error)
            before = now

    def tick(self, seconds: float) -> None:
        """So much time has passed."""
        now = self._clock.now()
        for uuid in [uuid for uuid, until in self._away.items() if until <= now]:
            del self._away[uuid]
            self._back(uuid)
        for uuid in [uuid for uuid, at in self._again.items() if at <= now]:
            del self._again[uuid]
            self._back(uuid)
        for uuid in [uuid for uuid, until in self._outage_until.items() if until <= now]:
            del self._outage_until[uuid]
        for behaviour, uuids in self._hosts.restless:
            self._by_rate(behaviour, uuids, seconds / 3600)

    def _by_rate(self, behaviour: Behaviour, uuids: Sequence[str], hours: float) -> None:
        rates: tuple[tuple[Mishap, Outages], ...] = (
            (Mishap.DIE, behaviour.die),
            (Mishap.CUT, behaviour.cut),
            (Mishap.STORAGE, behaviour.storage),
            (Mishap.CRASH, Outages(behaviour.crash)),
            (Mishap.SHUTDOWN, Outages(behaviour.shutdown)),
        )
        for what, outages in rates:
            for _ in range(self._times(outages.an_hour * hours * len(uuids))):
                self.befall(what, [self._dice.choice(uuids)], seconds=outages.lasts.at(self._dice.random()))

    def _times(self, expected: float) -> int:
        """How often what happens `expected` times on average happens now: Poisson's, by exponential gaps."""
        if expected <= 0:
            return 0
        times, passed = 0, self._dice.expovariate(expected)
        while passed < 1:
            times += 1
            passed += self._dice.expovariate(expected)
        return times

    # ---- operations

    def chance(self, *about: str) -> float:
        """A number from 0 to 1 that is the same for the same words under the same seed, whatever else happens."""
        digest = hashlib.blake2b("/".join((self._seed, *about)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    async def perform(
        self, uuid: str, number: int, operation: AnyOperation, act: Callable[[], Awaitable[AnyResult]]
    ) -> AnyResult:
        """Have the host do it as its behaviour says. Raises `Refused`, and `Withheld` when it died meanwhile."""
        kind = type(operation).__name__
        behaviour = self._hosts.behaviour_of(uuid)
        about = (uuid, str(number), kind)
        life = self._lives[uuid]
        takes = behaviour.latency_of(kind).at(self.chance("latency", *about))
        if takes > 0:
            await self._clock.sleep(takes)
        self._require_life(uuid, life)
        if uuid in self._outage_until and isinstance(operation, ON_STORAGE):
            self.happened["outage"] += 1
            raise Refused(Reason.UNREACHABLE, "simulated: the primary storage does not answer")
        if self.chance("refuse", *about) < behaviour.refuse_of(kind):
            self.happened["refuse"] += 1
            raise Refused(behaviour.reason, f"simulated: {kind} is refused")
        result = await act()
        self._require_life(uuid, life)
        return result

    def _require_life(self, uuid: str, life: int) -> None:
        if self._lives[uuid] != life:
            raise Withheld(f"{uuid} lost its power")

    async def tell(self, uuid: str, operation_id: str) -> int:
        """How often the answer is told: 0 when it is lost, or the host is away; after a while, when it is late."""
        behaviour = self._hosts.behaviour_of(uuid)
        if behaviour.late and self.chance("late", uuid, operation_id) < behaviour.late:
            self.happened["late"] += 1
            await self._clock.sleep(behaviour.lateness.at(self.chance("lateness", uuid, operation_id)))
        if uuid in self._away:
            return 0
        if behaviour.lose and self._dice.random() < behaviour.lose:
            # Its connection broke before the answer was through: it has another soon, over which it is asked again.
            self.happened["lose"] += 1
            self._again[uuid] = self._clock.now() + LOST_LINE_SECONDS
            return 0
        if behaviour.twice and self.chance("twice", uuid, operation_id) < behaviour.twice:
            self.happened["twice"] += 1
            return 2
        return 1


class MishapHost(RoutingHost):
    """A host of a fleet to which things may happen."""

    def __init__(self, uuid: str, backend: SimulatorBackend, journal: Journal, mishaps: Mishaps) -> None:
        super().__init__(uuid, backend, journal)
        self._mishaps = mishaps
        self._number = 0

    async def execute(self, operation: AnyOperation, progressed: Progressed) -> AnyResult:
        self._number += 1
        act = functools.partial(super().execute, operation, progressed)
        return await self._mishaps.perform(self.uuid, self._number, operation, act)
