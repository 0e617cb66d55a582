"""Simulated hosts without sockets: deliveries go straight into the agent's own execution and journal code.

For harnesses that drive a server in one thread. Nothing here waits: time is an `InstantClock`.
"""

import copy
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from pileus.agent.backends.simulator.backend import SimulatorBackend, simulated_host
from pileus.agent.backends.simulator.faults import AgentDied, Faults, InstantClock, When
from pileus.agent.backends.simulator.store import SimulatedStore
from pileus.agent.backends.simulator.world import World
from pileus.agent.host import RoutingHost, StorageHost, perform, still_true
from pileus.agent.journal import Journal, at_once
from pileus.agent.queues import QueueKey
from pileus.wire.messages import Answer, Deliver, HostIntro, VmChange
from pileus.wire.operations import AnyOperation

T = TypeVar("T")

Changed = Callable[[str, str, str, int, VmChange], None]
"""Called with host, name, UUID, epoch and change when a guest changes by itself."""


class AnswerLost(Exception):
    """The host did or did not act, but its answer never came: deliver again, or take `late_answers`."""


class HostSilent(Exception):
    """The host cannot be reached; nothing was delivered."""


class SimulatedHosts:
    """A fleet with one agent. After `AnswerLost` the next delivery of the same id behaves as a real agent's would."""

    def __init__(self, *, changed: Changed | None = None) -> None:
        self.world = World()
        self.faults = Faults()
        self.clock = InstantClock()
        self.silent: set[str] = set()
        """Hosts that cannot be reached now."""
        self.delivered: list[Deliver] = []
        self.lost_answers = 0
        """So many of the next answers are lost after the host acted."""
        self._changed = changed
        self._journal = _MortalJournal(self.faults, self.clock)
        self._backends: dict[str, SimulatorBackend] = {}
        self._hosts: dict[str, RoutingHost | StorageHost] = {}
        self.stores: dict[str, SimulatedStore] = {}

    def add(
        self, host: str, *, cpus: int = 8, cpu_mhz: int = 2000, memory_bytes: int = 16 << 30, address: str = "127.0.0.1"
    ) -> SimulatorBackend:
        """Add a routing host; its backend can crash guests and the like."""
        facts = simulated_host(host, cpus=cpus, cpu_mhz=cpu_mhz, memory_bytes=memory_bytes, address=address)
        backend = SimulatorBackend(self.world, facts, clock=self.clock, faults=self.faults)
        self._backends[host] = backend
        self._hosts[host] = RoutingHost(host, backend, self._journal)
        self._open(host)
        return backend

    def add_storage(self, host: str, *, capacity_bytes: int = 1 << 40) -> SimulatedStore:
        """Add a secondary storage host."""
        store = SimulatedStore(host, capacity_bytes=capacity_bytes, faults=self.faults)
        self.stores[host] = store
        self._hosts[host] = StorageHost(host, store)
        self._open(host)
        return store

    def copied(self, *, changed: Changed | None = None) -> "SimulatedHosts":
        """Another fleet in the same state, on its own from now on: nothing armed, silent or lost goes along."""
        twin = SimulatedHosts(changed=changed)
        twin.world = copy.deepcopy(self.world)
        twin.clock.advance(self.clock.now())
        self._journal.copy_into(twin._journal)
        for uuid, host in self._hosts.items():
            if isinstance(host, StorageHost):
                store = twin.add_storage(uuid)
                store.images = copy.deepcopy(self.stores[uuid].images)
                store.sizes, store.default_bytes = dict(self.stores[uuid].sizes), self.stores[uuid].default_bytes
            else:
                backend = twin.add(uuid)  # The host itself is there already, with the means it has.
                backend.stubborn = set(self._backends[uuid].stubborn)
                backend.template_bytes = self._backends[uuid].template_bytes
        return twin

    def backend(self, host: str) -> SimulatorBackend:
        """The backend of a routing host."""
        return self._backends[host]

    def intro(self, host: str) -> HostIntro:
        """What the host would say in its Hello."""
        return _now(self._hosts[host].intro())

    def deliver(self, host: str, operation_id: str, queue: str, operation: AnyOperation) -> Answer:
        """Deliver and execute at once. Raises `HostSilent` and `AnswerLost`.

        An agent that dies in the middle (`Fault(dies=True)`) comes back with its journal: that is `AnswerLost`.
        """
        if host in self.silent or host not in self._hosts:
            raise HostSilent(host)
        order = Deliver(operation_id, host, queue, operation)
        self.delivered.append(order)
        try:
            outcome = _now(perform(self._hosts[host], self._journal, order, lambda percent, text: None))
        except AgentDied as death:
            self._restart()
            raise AnswerLost(str(death)) from death
        if self.lost_answers > 0:
            self.lost_answers -= 1
            raise AnswerLost(operation_id)
        return outcome.answer

    def late_answers(self, host: str) -> list[Answer]:
        """What the agent sends again on a new connection: every answer that nobody has told it to forget."""
        return [_now(still_true(self._hosts[host], each)) for each in _now(self._journal.unforgotten(host))]

    def forget(self, *operation_ids: str) -> None:
        """The server has stored these answers."""
        _now(self._journal.forget(operation_ids))

    def queues(self) -> set[QueueKey]:
        """Every (host, queue) that was ever delivered to."""
        return {(order.host, order.queue) for order in self.delivered}

    def _open(self, host: str) -> None:
        def noticed(name: str, uuid: str, epoch: int, change: VmChange) -> None:
            if self._changed is not None:
                self._changed(host, name, uuid, epoch, change)

        _now(self._hosts[host].open(noticed))

    def _restart(self) -> None:
        # What the dead process held in memory is gone; the journal and the world are not.
        for uuid, backend in self._backends.items():
            self._hosts[uuid] = RoutingHost(uuid, backend, self._journal)
            self._open(uuid)


class _MortalJournal(Journal):
    """A journal in memory whose process may die just before or after an answer is stored."""

    def __init__(self, faults: Faults, clock: InstantClock) -> None:
        super().__init__(None, offload=at_once, wall_clock=clock.now)
        self._faults = faults

    async def finish(self, answer: Answer) -> Answer:
        self._faults.strike(answer.host, "finish", answer.operation_id, When.BEFORE)
        stored = await super().finish(answer)
        self._faults.strike(answer.host, "finish", answer.operation_id, When.AFTER)
        return stored


def _now(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits: it needs no event loop, so it runs inside any."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a simulated host waited for something outside its world")
