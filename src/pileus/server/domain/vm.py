"""Guests and system VMs: their states, kinds and names. Guide: "VM Lifecycle"."""

from enum import StrEnum

from pileus.server.domain.transitions import Transitions


class VmState(StrEnum):
    """Wire states of a virtual machine."""

    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    DESTROYED = "Destroyed"
    EXPUNGING = "Expunging"
    MIGRATING = "Migrating"
    ERROR = "Error"
    UNKNOWN = "Unknown"


OUT_OF_SIGHT = (VmState.DESTROYED, VmState.EXPUNGING)
"""States in which a guest is shown to administrators only."""


class VmKind(StrEnum):
    """What a virtual machine is for."""

    USER = "User"
    ROUTER = "DomainRouter"
    CONSOLE_PROXY = "ConsoleProxy"
    SECONDARY_STORAGE = "SecondaryStorageVm"


VM = Transitions[VmState](
    {
        VmState.STARTING: (VmState.RUNNING, VmState.STOPPED, VmState.ERROR),
        VmState.RUNNING: (VmState.STOPPING, VmState.STOPPED, VmState.MIGRATING, VmState.UNKNOWN),
        VmState.STOPPING: (VmState.STOPPED, VmState.RUNNING),
        VmState.STOPPED: (VmState.STARTING, VmState.DESTROYED, VmState.EXPUNGING),
        VmState.MIGRATING: (VmState.RUNNING, VmState.STOPPED),
        VmState.DESTROYED: (VmState.EXPUNGING, VmState.STOPPED),
        VmState.ERROR: (VmState.EXPUNGING, VmState.DESTROYED),
        VmState.UNKNOWN: (VmState.RUNNING, VmState.STOPPED),
        VmState.EXPUNGING: (),
    }
)


class LifeState(StrEnum):
    """States of an incarnation: one life of a VM on one host."""

    PLANNED = "Planned"
    LIVE = "Live"
    ENDING = "Ending"
    OVER = "Over"


LIFE = Transitions[LifeState](
    {
        LifeState.PLANNED: (LifeState.LIVE, LifeState.ENDING, LifeState.OVER),
        LifeState.LIVE: (LifeState.ENDING, LifeState.OVER),
        LifeState.ENDING: (LifeState.OVER,),
        LifeState.OVER: (),
    }
)


def guest_name(account_id: int, vm_id: int) -> str:
    """The immutable instance name of a guest (RFC 1123)."""
    return f"i-{account_id}-{vm_id}-VM"


def router_name(vm_id: int) -> str:
    """The instance name of a virtual router."""
    return f"r-{vm_id}-VM"
