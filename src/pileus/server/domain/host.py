"""Hosts and what they belong to: states. Guide: "Working with Hosts"."""

from enum import StrEnum

from pileus.server.domain.transitions import Transitions


class HostState(StrEnum):
    """Wire states of a host."""

    CONNECTING = "Connecting"
    UP = "Up"
    DISCONNECTED = "Disconnected"
    DOWN = "Down"
    ALERT = "Alert"
    REMOVED = "Removed"


HOST = Transitions[HostState](
    {
        HostState.CONNECTING: (HostState.UP, HostState.DOWN, HostState.REMOVED),
        HostState.UP: (HostState.DISCONNECTED, HostState.DOWN, HostState.ALERT, HostState.REMOVED),
        HostState.DISCONNECTED: (HostState.UP, HostState.DOWN, HostState.REMOVED),
        HostState.DOWN: (HostState.UP, HostState.REMOVED),
        HostState.ALERT: (HostState.UP, HostState.DOWN, HostState.REMOVED),
        HostState.REMOVED: (),
    }
)


class AllocationState(StrEnum):
    """Whether new guests may be placed there."""

    ENABLED = "Enabled"
    DISABLED = "Disabled"


class Hypervisor(StrEnum):
    """Hypervisor types as the API names them."""

    KVM = "KVM"
    SIMULATOR = "Simulator"
    XENSERVER = "XenServer"
    VMWARE = "VMware"
    NONE = "None"
