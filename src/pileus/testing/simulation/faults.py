"""What goes wrong: hosts refuse, vanish and come back, agents and servers end, guests do as they like, time jumps."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pileus.agent.backends.simulator import Fault, When
from pileus.testing.simulation.chronicle import Chronicle
from pileus.testing.simulation.lines import Line, LinedWorld
from pileus.wire.operations import Reason

REASONS = (Reason.NO_ROOM, Reason.UNREACHABLE, Reason.MISSING, Reason.REJECTED, Reason.FAILED)
CALLS = (
    "start_domain",
    "shut_down",
    "remove_domain",
    "create_volume",
    "delete_volume",
    "fetch_template",
    "start_router",
    "configure_router",
    "remove_router",
    "plug_network",
    "unplug_network",
    "attach_pool",
    "download",
    "delete",
)


@dataclass
class Mishaps:
    """Strikes when told to, as the dice decide."""

    world: LinedWorld
    dice: random.Random
    chronicle: Chronicle
    last_at: int = 0
    """When the last fault began or ended."""
    struck: Counter[str] = field(default_factory=Counter)
    """How often each kind was."""

    def strike(self) -> None:
        """Let something go wrong."""
        self.last_at = self.world.clock.now()
        kind = self.dice.choices(list(KINDS), [weight for _, weight in KINDS.values()])[0]
        self.struck[kind] += 1
        KINDS[kind][0](self)

    def stop(self) -> None:
        """Nothing goes wrong any more, and everybody is back."""
        self.chronicle.note("faults stop")
        world = self.world
        world.crash_in, world.twice, world.trouble = 0, 0.0, False
        world.hosts.faults.clear()
        for line in world.all_lines():
            if not (line.reachable and line.powered):
                world.come_back(line)
        for uuid in sorted(world.hosts.world.hosts):
            world.hosts.backend(uuid).stubborn.clear()
        self.last_at = world.clock.now()

    def _host(self) -> Line:
        return self.dice.choice(self.world.all_lines())

    def _arm(self, fault: Fault) -> None:
        self.chronicle.note(f"armed: {fault}")
        self.world.hosts.faults.arm(fault)

    def _refusal(self) -> None:
        reason, call = self.dice.choice(REASONS), self.dice.choice(CALLS)
        if call == "configure_router" and reason is Reason.REJECTED:
            reason = Reason.FAILED  # A config that is rejected is not pushed again: that is a promise, not a fault.
        self._arm(Fault(call, self.dice.choice(tuple(When)), reason, times=self.dice.choice((1, 1, 2, 5))))

    def _failure(self) -> None:
        self._arm(Fault(self.dice.choice(CALLS), self.dice.choice(tuple(When))))

    def _agent_dies(self) -> None:
        self._arm(Fault(self.dice.choice((*CALLS, "*", "finish", "finish")), self.dice.choice(tuple(When)), dies=True))

    def _seconds(self) -> float:
        return self.dice.choice((5.0, 60.0, 200.0, 900.0, 5000.0))

    def _silence(self) -> None:
        line = self._host()
        if line.reachable and line.powered:
            self.world.cut(line, seconds=self._seconds())

    def _power(self) -> None:
        line = self._host()
        if line.reachable and line.powered and line.host_id not in self.world.stores:
            self.world.kill(line, seconds=self._seconds())

    def _line(self) -> None:
        line = self._host()
        if line.up:
            self.world.end_line(line)

    def _agent(self) -> None:
        self.world.kill_agent(self._host())

    def _guest(self) -> None:
        running = [(uuid, guest.name) for uuid, guest in self.world.hosts.world.guests() if guest.running]
        if not running:
            return
        uuid, name = self.dice.choice(running)
        backend = self.world.hosts.backend(uuid)
        way = self.dice.choice(("crashes", "shuts down", "reboots", "is stubborn"))
        self.chronicle.note(f"guest {name} {way}")
        match way:
            case "crashes":
                backend.crash_guest(name)
            case "shuts down":
                backend.shut_down_inside(name)
            case "reboots":
                backend.reboot_inside(name)
            case _:
                backend.stubborn.add(name)

    def _crash(self) -> None:
        self.world.crash_in = self.dice.randrange(1, 40)
        self.world.crash_before = self.dice.random() < 0.5
        self.chronicle.note(f"armed: the server ends at commit {self.world.crash_in}")

    def _twice(self) -> None:
        self.world.twice = self.dice.choice((0.0, 0.3))
        self.chronicle.note(f"orders and answers come twice with {self.world.twice}")

    def _jump(self) -> None:
        seconds = self.dice.choice((60.0, 400.0, 1800.0, 7200.0))
        self.chronicle.note(f"time jumps by {seconds} s")
        self.world.pass_time(seconds)


KINDS: Mapping[str, tuple[Callable[[Mishaps], None], int]] = {
    "refusal": (Mishaps._refusal, 4),
    "failure": (Mishaps._failure, 2),
    "death of an agent at work": (Mishaps._agent_dies, 2),
    "silence": (Mishaps._silence, 3),
    "power cut": (Mishaps._power, 2),
    "end of a line": (Mishaps._line, 2),
    "death of an agent": (Mishaps._agent, 1),
    "guest by itself": (Mishaps._guest, 4),
    "crash of the server": (Mishaps._crash, 3),
    "all comes twice": (Mishaps._twice, 1),
    "jump of time": (Mishaps._jump, 2),
}
"""Every kind of fault, and its weight."""
