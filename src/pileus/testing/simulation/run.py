"""One run: calls and faults as the seed has it, then peace, then judgement."""

import random
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from pileus.server.db.transaction import Tx
from pileus.server.registered import register_all
from pileus.testing.clock import FakeClock
from pileus.testing.simulation.chronicle import Chronicle
from pileus.testing.simulation.faults import Mishaps
from pileus.testing.simulation.invariants import End, broken, is_quiet
from pileus.testing.simulation.lines import Crash, LinedWorld
from pileus.testing.simulation.memory import memory_database
from pileus.testing.simulation.sealed import overheard, sealed
from pileus.testing.simulation.stage import Stage, stage
from pileus.testing.simulation.workload import Workload, changing, liking

PEACE_SECONDS = 4 * 3600
"""How long after the last fault everything must have come to rest."""

ACTS = (10, 15, 20, 30)
"""Calls in a run, unless somebody says how many. Some bugs need many calls; for most, more short runs find more."""

INHABITED = 0.6
"""Probability that a run does not begin in an empty cloud."""

FREQUENT = frozenset(
    {
        "addCluster",
        "associateIpAddress",
        "createNetwork",
        "createPod",
        "createPortForwardingRule",
        "createStoragePool",
        "createUser",
        "createVlanIpRange",
        "createZone",
        "deployVirtualMachine",
        "destroyVirtualMachine",
        "registerTemplate",
        "stopRouter",
        "stopVirtualMachine",
    }
)
"""What a tour calls in every round, because others need what it leaves."""

TURNS = 30_000
"""More than a sound run ever takes."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `wrong` names each broken invariant with what broke it."""

    seed: int
    wrong: tuple[str, ...]
    digest: str
    trace: tuple[str, ...]
    accepted: Mapping[str, int] = field(default_factory=dict)
    """How often each command that changes something was accepted."""
    faults: Mapping[str, int] = field(default_factory=dict)
    """How often each kind of fault struck."""

    @classmethod
    def of_failure(cls, seed: int, text: str) -> "Outcome":
        """Of a run that did not get as far as its end."""
        return cls(seed, (text,), "", ())

    @property
    def ok(self) -> bool:
        return not self.wrong

    def without_trace(self) -> "Outcome":
        """The trace of a sound run is of no interest, and can be had again."""
        return replace(self, trace=()) if self.ok else self

    def __str__(self) -> str:
        verdict = "\n".join(self.wrong) if self.wrong else "sound"
        return "\n".join([*self.trace, f"seed {self.seed}: {verdict}"])


def simulate(seed: int, *, acts: int | None = None) -> Outcome:
    """Play the run of a seed with about so many calls, or as many as it has itself.

    The same arguments play the same run.
    """
    register_all()
    dice = random.Random(f"run {seed}")  # noqa: S311 (a simulation must be repeatable)
    set_up = stage(dice.choice((2, 3)), inhabited=dice.random() < INHABITED)
    clock = FakeClock(set_up.now)
    chronicle = Chronicle(clock)
    with memory_database(clock, set_up.image) as db, sealed(seed), overheard(chronicle):
        play = Play(LinedWorld(db, clock, like=set_up.world), set_up, dice, chronicle, liking=liking(seed))
        wrong = play.run(dice.choice(ACTS) if acts is None else acts)
        play.world.end()
    accepted = Counter(ack.command for ack in play.workload.acks)
    return Outcome(seed, tuple(wrong), chronicle.digest, tuple(chronicle.lines), accepted, play.mishaps.struck)


CALM_SECONDS = 65.0
"""How long nothing may move before a run is judged: longer than the reconciler vm-sync takes to look again."""


def tour(*, rounds: int = 12) -> tuple[set[str], list[str]]:
    """Call every command that runs make, without faults, until it is accepted or `rounds` are over.

    Returns the names of those that were accepted, and what was wrong in the end.
    """
    register_all()
    dice = random.Random("tour")  # noqa: S311 (a simulation must be repeatable)
    set_up = stage(3)
    clock = FakeClock(set_up.now)
    chronicle = Chronicle(clock)
    with memory_database(clock, set_up.image) as db, sealed("tour"), overheard(chronicle):
        play = Play(LinedWorld(db, clock, like=set_up.world), set_up, dice, chronicle)
        wrong = play.tour(rounds)
        play.world.end()
    return {ack.command for ack in play.workload.acks}, wrong


class Play:
    """A run that is under way."""

    def __init__(
        self,
        world: LinedWorld,
        set_up: Stage,
        dice: random.Random,
        chronicle: Chronicle,
        *,
        liking: Collection[str] = (),
    ) -> None:
        self.world, self.dice, self.chronicle = world, dice, chronicle
        self.mishaps = Mishaps(world, dice, chronicle)
        self.workload = Workload(world, set_up, dice, chronicle, liking)
        world.begin(dice, chronicle)

    def tour(self, rounds: int) -> list[str]:
        """See `tour`. Returns what is wrong in the end."""
        self.world.trouble = False
        # What is made first is there for the others, and what is deleted last is not missed by them.
        first = [spec for spec in changing() if spec.name.startswith(("create", "add", "register", "deploy"))]
        ends = ("delete", "destroy", "recover", "disable", "lock")
        last = [spec for spec in changing() if spec.name.startswith(ends)]
        # Accounts, networks and guests take along what others would delete by itself.
        last.sort(key=lambda spec: spec.name.endswith(("Account", "Domain", "Network", "VirtualMachine", "IpAddress")))
        rest = [spec for spec in changing() if spec not in first and spec not in last]
        for number in range(rounds):
            if {spec.name for spec in changing()} <= {ack.command for ack in self.workload.acks}:
                break
            # While accounts are closed or guests destroyed, nothing else can be made of what is theirs.
            for spec in [*first, *rest, *(last if number > 2 else [])]:
                if spec.name not in FREQUENT and any(ack.command == spec.name for ack in self.workload.acks):
                    continue
                # A command more or less must not change what the others are called with.
                self.dice.seed(f"{spec.name} {number}")
                callers = [person for person in self.workload.people if spec.roles & person.role]
                self.dice.shuffle(callers)
                if any(self.workload.want(person, spec) for person in callers):
                    self._turns(TURNS)
        return self._judged()

    def run(self, acts: int) -> list[str]:
        """Everything, with so many calls. Returns what is wrong in the end."""
        self._turns(self.dice.randrange(10))
        for _ in range(acts):
            self._act()
            if self.dice.random() < 0.35:
                self._guarded(self.mishaps.strike)
            self._turns(self.dice.choice((0, 2, 5, 20, 60)))
            if self.dice.random() < 0.5:
                self._guarded(self._pass_some_time)
        return self._judged()

    def _judged(self) -> list[str]:
        self.mishaps.stop()
        quiet = self._calm_down()
        with self.world.db.read() as tx:
            end = self.end(tx, quiet=quiet)
            return [*(f"error that nobody foresaw: {bug}" for bug in self.chronicle.bugs), *broken(end)]

    def end(self, tx: Tx, *, quiet: bool) -> End:
        """What the invariants judge."""
        return End(self.world, tx, tuple(self.workload.acks), self.mishaps.last_at, quiet=quiet)

    def _act(self) -> None:
        self._guarded(self.workload.call)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Crash:
            self.world.restart()

    def _turns(self, number: int) -> None:
        for _ in range(number):
            if not self.world.turn():
                return

    def _pass_some_time(self) -> None:
        self.world.pass_time(self.dice.choice((0.1, 1.0, 5.0, 30.0, 90.0)))

    def _calm_down(self) -> bool:
        """Let time pass until nothing moves any more. False when that takes too long."""
        world = self.world
        give_up_at = world.clock.now() + PEACE_SECONDS * 1000
        calm_since: int | None = None
        for _ in range(TURNS):
            if world.turn():
                continue
            now = world.clock.now()
            with world.db.read() as tx:
                calm_since = (now if calm_since is None else calm_since) if is_quiet(tx) else None
            # What a host refused while it was in trouble is asked for again from time to time.
            if calm_since is not None and now - calm_since > CALM_SECONDS * 1000:
                return True
            if world.clock.now() > give_up_at:
                return False
            next_at = world.next_event_at()
            pause = 660.0 if next_at is None else (next_at - world.clock.now()) / 1000
            world.pass_time(min(660.0, pause + 0.001))
        return False
