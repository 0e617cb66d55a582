"""The simulator: hosts in memory behind the same Protocol as real ones, for tests, harnesses and large fleets.

Hosts of one agent process that name the same `world` (an option) share pools, so guests can move between them.
"""

from pileus.agent.backend import Backend, HostSettings, ImageStore
from pileus.agent.backends.simulator.backend import Pace, SimulatorBackend, simulated_host
from pileus.agent.backends.simulator.faults import (
    AgentDied,
    Clock,
    Fault,
    Faults,
    InstantClock,
    RunningClock,
    When,
)
from pileus.agent.backends.simulator.hosts import AnswerLost, HostSilent, SimulatedHosts
from pileus.agent.backends.simulator.store import SimulatedStore
from pileus.agent.backends.simulator.world import NotTrue, World

__all__ = [
    "AgentDied",
    "AnswerLost",
    "Clock",
    "Fault",
    "Faults",
    "HostSilent",
    "InstantClock",
    "NotTrue",
    "Pace",
    "RunningClock",
    "SimulatedHosts",
    "SimulatedStore",
    "SimulatorBackend",
    "When",
    "World",
    "create",
    "create_store",
    "simulated_host",
]

worlds: dict[str, World] = {}
"""The worlds of this process by name."""


def create(settings: HostSettings) -> Backend:
    """A simulated host. Options: cpus, cpu_mhz, memory_mib, world, seed, call_seconds, shut_down_seconds.

    Raises ValueError for an option of another name or kind.
    """
    options = dict(settings.options)
    world = worlds.setdefault(str(options.pop("world", "default")), World())
    pace = Pace(
        call=float(options.pop("call_seconds", 0.0)),
        shut_down=float(options.pop("shut_down_seconds", 2.0)),
        seed=str(options.pop("seed", "0")),
    )
    host = simulated_host(
        settings.host_uuid,
        cpus=int(options.pop("cpus", 8)),
        cpu_mhz=int(options.pop("cpu_mhz", 2000)),
        memory_bytes=int(options.pop("memory_mib", 16384)) << 20,
        address=settings.address,
    )
    if options:
        raise ValueError(f"the simulator knows no option {', '.join(sorted(options))}")
    return SimulatorBackend(world, host, clock=RunningClock(), pace=pace)


def create_store(settings: HostSettings) -> ImageStore:
    """Simulated secondary storage, which fetches nothing. Options: capacity_gib, image_mib (size of every image).

    Raises ValueError for an option of another name or kind.
    """
    options = dict(settings.options)
    store = SimulatedStore(settings.host_uuid, capacity_bytes=int(options.pop("capacity_gib", 1024)) << 30)
    store.default_bytes = int(options.pop("image_mib", 64)) << 20
    if options:
        raise ValueError(f"the simulated store knows no option {', '.join(sorted(options))}")
    return store
