"""Runs the atomics of one operation against a backend, and leaves nothing behind when it refuses.

After a failure it asks the backend what is really there (`check_state`) instead of trusting its own record. Two
operations may share a bridge: a network is held from plugging until its operation ends, so that the stop of one
guest never takes the bridge from under the start of another.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from pileus.agent import operations
from pileus.agent.backend import Backend, ImageStore, Noticed, Progressed, Refused
from pileus.agent.journal import Journal
from pileus.agent.operations import Atomic, Life
from pileus.wire.messages import VmChange, VmSeen
from pileus.wire.operations import (
    AnyOperation,
    AnyResult,
    CreateVolume,
    DeleteImage,
    DeleteVolume,
    DetachPool,
    Done,
    DownloadTemplate,
    FetchTemplate,
    Reason,
    RebootVm,
    RemoveTemplate,
    StartRouter,
    StartVm,
)
from pileus.wire.places import NetworkRef

log = structlog.get_logger(__name__)


class _AlreadySo(Exception):
    """What the operation wants is true already; the rest of its atomics is left out."""


class Executor:
    """Operations of one routing host. Calls for one guest must come one after the other (see `queues`)."""

    def __init__(self, *, host: str, backend: Backend, journal: Journal, noticed: Noticed) -> None:
        self._host = host
        self._backend = backend
        self._journal = journal
        self._noticed = noticed
        self._held: Counter[NetworkRef] = Counter()
        self._bridge_locks: defaultdict[NetworkRef, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def execute(self, operation: AnyOperation, progressed: Progressed) -> AnyResult:
        """Bring about what the operation says. Raises `Refused`; then nothing of it is left on the host."""
        async with self._holding(operation) as held:
            try:
                return await self._run(operations.expand(operation), progressed)
            except asyncio.CancelledError:
                raise  # The agent ends; the journal entry stays open and the operation is run again.
            except Exception as error:
                refused = _refusal(error, operation)
                self._release(held)
                await self._check_state(operation, refused)
                raise refused from error

    async def _run(self, atomics: tuple[Atomic, ...], progressed: Progressed) -> AnyResult:
        result: AnyResult | None = None
        try:
            for atomic in atomics:
                result = await self._one(atomic, progressed)
        except _AlreadySo:
            return Done()
        return result or Done()

    async def _one(self, atomic: Atomic, progressed: Progressed) -> AnyResult | None:
        backend = self._backend
        match atomic:
            case operations.ClaimLife(life=life):
                await self._claim(life)
            case operations.EndLife(life=life):
                await self._end(life)
            case operations.RequireLife(name=name, epoch=epoch):
                _require(await backend.seen(name), name, epoch)
            case operations.NoteNetworks(life=life):
                await self._journal.note_networks(self._host, life.name, await backend.networks_of(life.name))
            case operations.Attach(pool=pool):
                return await backend.attach_pool(pool)
            case operations.Plug(life=life, networks=networks):
                # Noted first: after a crash in between, the stop still knows which bridges to take away.
                await self._journal.note_networks(self._host, life.name, networks)
                for network in networks:
                    async with self._bridge_locks[network]:
                        await backend.plug_network(network)
            case operations.UnplugNoted(life=life):
                await self._unplug(life)
            case operations.StartDomain(vm=vm):
                return await backend.start_domain(vm)
            case operations.ShutDown(name=name, grace_seconds=grace):
                await backend.shut_down(name, grace)
            case operations.RemoveLife(life=life):
                await self._remove(life)
            case operations.RunRouter(router=router, config=config):
                return await backend.start_router(router, config)
            case operations.Configure(name=name, config=config):
                return await backend.configure_router(name, config)
            case operations.Simple(order=order):
                return await self._simple(order, progressed)
        return None

    async def _simple(self, order: AnyOperation, progressed: Progressed) -> AnyResult | None:
        match order:
            case DetachPool(pool=pool):
                await self._backend.detach_pool(pool)
            case FetchTemplate():
                return await self._backend.fetch_template(order, progressed)
            case RemoveTemplate(pool=pool, name=name):
                await self._backend.remove_template(pool, name)
            case CreateVolume(pool=pool, name=name, size_bytes=size_bytes, template=template):
                return await self._backend.create_volume(pool, name, size_bytes, template)
            case DeleteVolume(pool=pool, name=name):
                await self._backend.delete_volume(pool, name)
            case _:
                raise Refused(Reason.REJECTED, f"a routing host does no {type(order).__name__}")
        return None

    async def _claim(self, life: Life) -> None:
        fenced = await self._journal.fenced(self._host, life.uuid)
        if fenced >= life.epoch:
            raise Refused(Reason.STALE_EPOCH, f"epoch {life.epoch} of {life.name} was ended here (up to {fenced})")
        there = await self._backend.seen(life.name)
        if there is None:
            return
        if there.uuid != life.uuid:
            raise Refused(Reason.FAILED, f"the name {life.name} belongs to {there.uuid} here")
        if there.epoch > life.epoch:
            raise Refused(Reason.STALE_EPOCH, f"epoch {there.epoch} of {life.name} is here")
        if there.epoch < life.epoch:
            older = Life(life.name, life.uuid, there.epoch, router=there.router)
            await self._journal.note_networks(self._host, life.name, await self._backend.networks_of(life.name))
            await self._remove(older)
            await self._unplug(older)

    async def _end(self, life: Life) -> None:
        # Written before anything is stopped: a late start of this life must find the fence even after a crash.
        await self._journal.fence(self._host, life.uuid, life.epoch)
        there = await self._backend.seen(life.name)
        if there is not None and (there.uuid != life.uuid or there.epoch > life.epoch):
            raise _AlreadySo

    async def _remove(self, life: Life) -> None:
        if life.router:
            await self._backend.remove_router(life.name)
        else:
            await self._backend.remove_domain(life.name)

    async def _unplug(self, life: Life) -> None:
        for network in await self._journal.noted_networks(self._host, life.name):
            async with self._bridge_locks[network]:
                if not self._held[network]:
                    try:
                        await self._backend.unplug_network(network)
                    except Refused as refused:
                        # Whatever is missing: a bridge that stays must be asked for again.
                        raise Refused(Reason.FAILED, refused.text) from refused
        await self._journal.drop_networks(self._host, life.name)

    async def _check_state(self, operation: AnyOperation, refused: Refused) -> None:
        """Make the host agree with a refusal: what may not be there is taken away, what runs on is left alone."""
        atomics = operations.undo(operation)
        if not atomics or not isinstance(operation, StartVm | RebootVm | StartRouter):
            return
        spec = operation.router if isinstance(operation, StartRouter) else operation.vm
        life = operations.life_of(spec)
        try:
            there = await self._backend.seen(life.name)
            if there is not None and (there.uuid != life.uuid or there.epoch > life.epoch):
                return  # Another life, which this operation has no say over.
            if isinstance(operation, RebootVm) and there is not None and there.running:
                return  # The reboot was refused before the guest was touched.
            await self._run(atomics, lambda percent, text: None)
        except Exception as error:
            # The inventory of the next connection tells the server what is left here.
            log.error("cleanup.failed", host=self._host, name=life.name, epoch=life.epoch, error=str(error))
            return
        if isinstance(operation, RebootVm):
            self._noticed(life.name, life.uuid, life.epoch, VmChange.STOPPED)

    @asynccontextmanager
    async def _holding(self, operation: AnyOperation) -> AsyncIterator[set[NetworkRef]]:
        held: set[NetworkRef] = set()
        for atomic in operations.expand(operation):
            if isinstance(atomic, operations.Plug):
                held.update(atomic.networks)
        self._held.update(held)
        try:
            yield held
        finally:
            self._release(held)

    def _release(self, held: set[NetworkRef]) -> None:
        self._held.subtract(held)
        held.clear()


class ImageExecutor:
    """Operations of one secondary storage host."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store

    async def execute(self, operation: AnyOperation, progressed: Progressed) -> AnyResult:
        """Bring about what the operation says. Raises `Refused`."""
        try:
            match operation:
                case DownloadTemplate():
                    return await self._store.download(operation, progressed)
                case DeleteImage(name=name):
                    await self._store.delete(name)
                    return Done()
                case _:
                    raise Refused(Reason.REJECTED, f"secondary storage does no {type(operation).__name__}")
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise _refusal(error, operation) from error


def _require(there: VmSeen | None, name: str, epoch: int) -> None:
    if there is not None and there.epoch > epoch:
        raise Refused(Reason.STALE_EPOCH, f"epoch {there.epoch} of {name} is here")
    if there is None or there.epoch < epoch or not there.running:
        raise Refused(Reason.MISSING, f"epoch {epoch} of {name} does not run here")


def _refusal(error: Exception, operation: AnyOperation) -> Refused:
    if isinstance(error, Refused):
        return error
    log.error("operation.failed", operation=type(operation).__name__, exc_info=error)
    return Refused(Reason.FAILED, f"{type(error).__name__}: {error}")
