"""A host as the agent holds it: identity, what it is, and the execution of one delivered operation.

`perform` is the one place where journal and executor meet; the simulator's in-process hosts use it too.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pileus.agent.backend import Backend, ImageStore, Noticed, Progressed, Refused
from pileus.agent.executor import Executor, ImageExecutor
from pileus.agent.journal import Journal
from pileus.agent.operations import begun_by
from pileus.wire.messages import Answer, Deliver, HostIntro, HostKind, HostStats, WantedHost
from pileus.wire.operations import AnyOperation, AnyResult, Reason, Refusal


class Withheld(Exception):
    """The host did, or did not do, what it was asked, and nobody is told: it is gone. It will be asked again."""


class Host(Protocol):
    """One host of this agent."""

    @property
    def uuid(self) -> str: ...

    async def open(self, noticed: Noticed) -> None: ...

    async def close(self) -> None: ...

    async def intro(self) -> HostIntro:
        """What the host is and holds right now."""

    async def alive(self) -> None:
        """Ask the hypervisor or store for a sign of life; raises when there is none."""

    async def runs(self, name: str, epoch: int) -> bool:
        """Whether the named guest or router runs here in this epoch now."""

    async def stats(self) -> HostStats: ...

    async def renewed(self) -> None:
        """The agent's certificate is another from now on."""

    async def execute(self, operation: AnyOperation, progressed: Progressed) -> AnyResult:
        """Raises `Refused`."""


class Fleet(Protocol):
    """Hosts that come and go while the agent runs: as many as it has room for, made when a server wants them."""

    @property
    def room(self) -> int:
        """How many hosts more there is room for."""

    @property
    def uuids(self) -> list[str]:
        """The hosts there are."""

    def bind(self, noticed: Callable[[str], Noticed]) -> None:
        """Once, before anything else: what the backend of a host is to tell changes to."""

    def make(self, wanted: Sequence[WantedHost]) -> None:
        """These are ours from now on; those that are here already stay as they are."""

    def let_go(self, uuids: Iterable[str]) -> None:
        """These are not ours any more."""

    def come_anew(self, uuids: Iterable[str]) -> None:
        """The server wants these introduced once more: they are among those that `returned` tells of next."""

    async def host(self, uuid: str) -> Host | None:
        """The host of this UUID, if it is here and can be reached."""

    async def intros(self, uuids: Sequence[str]) -> tuple[HostIntro, ...]:
        """What these hosts are and hold now; those that cannot be reached are left out."""

    def is_away(self, uuid: str) -> bool:
        """Whether the host is here and cannot be reached: nothing is delivered to it, and it answers nothing."""

    async def tell(self, answer: Answer) -> int:
        """How often this answer gets through: once, unless something happens to it on the way."""

    async def run(self) -> None:
        """What happens by itself; never ends."""

    def silent(self) -> tuple[str, ...]:
        """Hosts that give no sign of life now."""

    async def returned(self) -> list[str]:
        """Waits until hosts that could not be reached can be, and have to be introduced anew."""

    async def stats(self) -> list[HostStats]:
        """Load of the hosts on which something has happened; the others are idle."""


class RoutingHost:
    """A host that runs guests."""

    def __init__(self, uuid: str, backend: Backend, journal: Journal) -> None:
        self._uuid = uuid
        self._backend = backend
        self._noticed: Noticed = lambda name, guest, epoch, change: None
        self._executor = Executor(
            host=uuid,
            backend=backend,
            journal=journal,
            noticed=lambda name, guest, epoch, change: self._noticed(name, guest, epoch, change),
        )

    @property
    def uuid(self) -> str:
        return self._uuid

    async def open(self, noticed: Noticed) -> None:
        self._noticed = noticed
        await self._backend.open(noticed)

    async def close(self) -> None:
        await self._backend.close()

    async def intro(self) -> HostIntro:
        facts = await self._backend.facts()
        pools = tuple(await self._backend.attached_pools())
        return HostIntro(self._uuid, HostKind.ROUTING, facts, tuple(await self._backend.inventory()), pools)

    async def alive(self) -> None:
        await self._backend.facts()

    async def runs(self, name: str, epoch: int) -> bool:
        there = await self._backend.seen(name)
        return there is not None and there.running and there.epoch == epoch

    async def stats(self) -> HostStats:
        return await self._backend.stats(self._uuid)

    async def renewed(self) -> None:
        return None  # Backends read the files whenever they show themselves to somebody.

    async def execute(self, operation: AnyOperation, progressed: Progressed) -> AnyResult:
        return await self._executor.execute(operation, progressed)


class StorageHost:
    """A host that keeps and serves images."""

    def __init__(self, uuid: str, store: ImageStore) -> None:
        self._uuid = uuid
        self._store = store
        self._executor = ImageExecutor(store)

    @property
    def uuid(self) -> str:
        return self._uuid

    async def open(self, noticed: Noticed) -> None:
        await self._store.open()

    async def close(self) -> None:
        await self._store.close()

    async def intro(self) -> HostIntro:
        return HostIntro(self._uuid, HostKind.SECONDARY_STORAGE, await self._store.facts())

    async def alive(self) -> None:
        await self._store.facts()

    async def runs(self, name: str, epoch: int) -> bool:
        return False

    async def stats(self) -> HostStats:
        return await self._store.stats(self._uuid)

    async def renewed(self) -> None:
        await self._store.renewed()

    async def execute(self, operation: AnyOperation, progressed: Progressed) -> AnyResult:
        return await self._executor.execute(operation, progressed)


@dataclass(frozen=True)
class Outcome:
    """An answer, and whether it was given before (`repeated`), so nothing was done for it now."""

    answer: Answer
    repeated: bool


async def perform(host: Host, journal: Journal, order: Deliver, progressed: Progressed) -> Outcome:
    """Do what was delivered, once: the answer of a second delivery is the first one, as far as it is still true."""
    first = await journal.begin(host.uuid, order.operation_id)
    if first is not None:
        return Outcome(await still_true(host, first), repeated=True)
    answer = functools.partial(Answer, order.operation_id, host.uuid)
    try:
        result = await host.execute(order.operation, progressed)
        outcome = answer(result=result, begun=begun_by(order.operation))
    except Refused as refused:
        outcome = answer(refusal=Refusal(refused.reason, refused.text))
    return Outcome(await journal.finish(outcome), repeated=False)


async def still_true(host: Host, answer: Answer) -> Answer:
    """The answer, or that what it began has ended: nobody may believe that it runs because the news came late.

    The end itself was told when nobody listened, and an inventory cannot tell it from a start that is still to come.
    """
    if answer.begun is None or answer.result is None:
        return answer
    try:
        if await host.runs(answer.begun.name, answer.begun.epoch):
            return answer
    except Refused:
        return answer  # The hypervisor cannot be asked now. What its host holds is told when it can.
    text = f"{answer.begun.name} had started, and has ended since"
    return Answer(answer.operation_id, answer.host, refusal=Refusal(Reason.FAILED, text))
