"""An operation becomes a list of atomics: one pure function, no I/O.

Every atomic brings about a state and may be run again, so the list of a half done operation is simply run anew.
"""

from dataclasses import dataclass

from pileus.wire.messages import Begun
from pileus.wire.operations import (
    AnyOperation,
    AttachPool,
    ConfigureRouter,
    CreateVolume,
    DeleteImage,
    DeleteVolume,
    DetachPool,
    DownloadTemplate,
    FetchTemplate,
    RebootVm,
    RemoveTemplate,
    RouterSpec,
    StartRouter,
    StartVm,
    StopRouter,
    StopVm,
    VmSpec,
)
from pileus.wire.places import NetworkRef, PoolRef
from pileus.wire.router import RouterConfig


@dataclass(frozen=True)
class Life:
    """One life of a guest or router: who, and which epoch."""

    name: str
    uuid: str
    epoch: int
    router: bool = False


@dataclass(frozen=True)
class ClaimLife:
    """Refuse when a newer life is known here or this one was ended; end older ones."""

    life: Life


@dataclass(frozen=True)
class EndLife:
    """Fence off this epoch and older ones for good. What follows is left out when a newer life is here."""

    life: Life


@dataclass(frozen=True)
class RequireLife:
    """Refuse unless exactly this epoch of the router is here; the wire gives no UUID for it."""

    name: str
    epoch: int


@dataclass(frozen=True)
class NoteNetworks:
    """Write down, before anything is taken away, which networks the life is plugged into."""

    life: Life


@dataclass(frozen=True)
class Attach:
    """Make the pool usable."""

    pool: PoolRef


@dataclass(frozen=True)
class Plug:
    """Make the networks' bridges and keep them while this operation runs."""

    life: Life
    networks: tuple[NetworkRef, ...]


@dataclass(frozen=True)
class UnplugNoted:
    """Remove the bridges of the noted networks that nothing else uses."""

    life: Life


@dataclass(frozen=True)
class StartDomain:
    """Define and start the guest."""

    vm: VmSpec


@dataclass(frozen=True)
class ShutDown:
    """Ask the guest's operating system and wait at most `grace_seconds`."""

    name: str
    grace_seconds: float


@dataclass(frozen=True)
class RemoveLife:
    """Pull the power and undefine the guest, or remove the router."""

    life: Life


@dataclass(frozen=True)
class RunRouter:
    """Start the router with its config applied."""

    router: RouterSpec
    config: RouterConfig


@dataclass(frozen=True)
class Configure:
    """Apply the whole config to a running router."""

    name: str
    config: RouterConfig


@dataclass(frozen=True)
class Simple:
    """An operation that is an atomic by itself: pools, volumes, templates and images."""

    order: DetachPool | FetchTemplate | RemoveTemplate | CreateVolume | DeleteVolume | DownloadTemplate | DeleteImage


Atomic = (
    ClaimLife
    | EndLife
    | RequireLife
    | NoteNetworks
    | Attach
    | Plug
    | UnplugNoted
    | StartDomain
    | ShutDown
    | RemoveLife
    | RunRouter
    | Configure
    | Simple
)


def expand(operation: AnyOperation) -> tuple[Atomic, ...]:
    """The atomics of an operation, in order. The answer is the result of the last one, or Done."""
    match operation:
        case AttachPool(pool=pool):
            return (Attach(pool),)
        case StartVm(vm=vm):
            return (*_prepare(vm), StartDomain(vm))
        case RebootVm(vm=vm, grace_seconds=grace):
            # Everything that may refuse comes before the guest is touched.
            return (*_prepare(vm), ShutDown(vm.name, grace), RemoveLife(life_of(vm)), StartDomain(vm))
        case StopVm(name=name, uuid=uuid, epoch=epoch):
            life = Life(name, uuid, epoch)
            ask = () if operation.forced else (ShutDown(name, operation.grace_seconds),)
            return (EndLife(life), NoteNetworks(life), *ask, RemoveLife(life), UnplugNoted(life))
        case StartRouter(router=router, config=config):
            life = life_of(router)
            return (ClaimLife(life), *_attachments(life, router), RunRouter(router, config))
        case ConfigureRouter(name=name, epoch=epoch, config=config):
            return (RequireLife(name, epoch), Configure(name, config))
        case StopRouter(name=name, uuid=uuid, epoch=epoch):
            life = Life(name, uuid, epoch, router=True)
            return (EndLife(life), NoteNetworks(life), RemoveLife(life), UnplugNoted(life))
        case FetchTemplate(pool=pool) | RemoveTemplate(pool=pool) | CreateVolume(pool=pool) | DeleteVolume(pool=pool):
            return (Attach(pool), Simple(operation))
        case DetachPool() | DownloadTemplate() | DeleteImage():
            return (Simple(operation),)


def undo(operation: AnyOperation) -> tuple[Atomic, ...]:
    """What takes away the leftovers of a refused operation, when its life is not running or must not be."""
    match operation:
        case StartVm(vm=spec) | RebootVm(vm=spec) | StartRouter(router=spec):
            life = life_of(spec)
            return (NoteNetworks(life), RemoveLife(life), UnplugNoted(life))
        case _:
            return ()


def life_of(spec: VmSpec | RouterSpec) -> Life:
    """The life that a spec describes."""
    return Life(spec.name, spec.uuid, spec.epoch, router=isinstance(spec, RouterSpec))


def subject(operation: AnyOperation) -> str:
    """Name of the guest or router that the operation may start or stop, or empty."""
    match operation:
        case StartVm(vm=spec) | RebootVm(vm=spec) | StartRouter(router=spec):
            return spec.name
        case StopVm(name=name) | StopRouter(name=name):
            return name
        case _:
            return ""


def begun_by(operation: AnyOperation) -> Begun | None:
    """The life that the operation begins, if it does."""
    match operation:
        case StartVm(vm=spec) | RebootVm(vm=spec) | StartRouter(router=spec):
            return Begun(spec.name, spec.epoch)
        case _:
            return None


def networks_in(spec: VmSpec | RouterSpec) -> tuple[NetworkRef, ...]:
    """The networks of a spec's NICs, each once, in order."""
    return tuple(dict.fromkeys(nic.network for nic in spec.nics))


def _prepare(vm: VmSpec) -> tuple[Atomic, ...]:
    life = life_of(vm)
    pools = dict.fromkeys(disk.pool for disk in vm.disks)
    return (ClaimLife(life), *(Attach(pool) for pool in pools), *_attachments(life, vm))


def _attachments(life: Life, spec: VmSpec | RouterSpec) -> tuple[Atomic, ...]:
    networks = networks_in(spec)
    return (Plug(life, networks),) if networks else ()
