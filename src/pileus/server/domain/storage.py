"""Volumes, templates and pools: states. Guide: "Storage Features and Types", "Working with Templates"."""

from enum import StrEnum

from pileus.server.domain.transitions import Transitions


class VolumeState(StrEnum):
    """Wire states of a volume."""

    ALLOCATED = "Allocated"
    CREATING = "Creating"
    READY = "Ready"
    DESTROY = "Destroy"
    EXPUNGED = "Expunged"


VOLUME = Transitions[VolumeState](
    {
        VolumeState.ALLOCATED: (VolumeState.CREATING, VolumeState.DESTROY, VolumeState.EXPUNGED),
        VolumeState.CREATING: (VolumeState.READY, VolumeState.ALLOCATED, VolumeState.DESTROY),
        VolumeState.READY: (VolumeState.DESTROY, VolumeState.ALLOCATED),
        VolumeState.DESTROY: (VolumeState.EXPUNGED,),
        VolumeState.EXPUNGED: (),
    }
)


SYSTEM_TEMPLATE = "SYSTEM"
USER_TEMPLATE = "USER"
"""Wire types of a template: what system virtual machines boot from, and all others."""


class VolumeKind(StrEnum):
    """Wire types of a volume."""

    ROOT = "ROOT"
    DATADISK = "DATADISK"


class CopyState(StrEnum):
    """A template's copy in one zone's secondary storage, or on one primary pool."""

    NOT_THERE = "NotThere"
    DOWNLOADING = "Downloading"
    READY = "Ready"
    FAILED = "Failed"
    REMOVING = "Removing"


COPY = Transitions[CopyState](
    {
        CopyState.NOT_THERE: (CopyState.DOWNLOADING, CopyState.REMOVING),
        CopyState.DOWNLOADING: (CopyState.READY, CopyState.FAILED, CopyState.NOT_THERE, CopyState.REMOVING),
        CopyState.READY: (CopyState.REMOVING, CopyState.NOT_THERE),
        CopyState.FAILED: (CopyState.DOWNLOADING, CopyState.REMOVING, CopyState.NOT_THERE),
        CopyState.REMOVING: (CopyState.NOT_THERE,),
    }
)


class PoolState(StrEnum):
    """Wire states of a primary storage pool; Initial until the first host has attached it."""

    INITIAL = "Initial"
    UP = "Up"
    PREPARE_FOR_MAINTENANCE = "PrepareForMaintenance"
    MAINTENANCE = "Maintenance"
    CANCEL_MAINTENANCE = "CancelMaintenance"
    REMOVED = "Removed"


POOL = Transitions[PoolState](
    {
        PoolState.INITIAL: (PoolState.UP, PoolState.REMOVED),
        PoolState.UP: (PoolState.PREPARE_FOR_MAINTENANCE, PoolState.REMOVED),
        PoolState.PREPARE_FOR_MAINTENANCE: (PoolState.MAINTENANCE, PoolState.UP),
        PoolState.MAINTENANCE: (PoolState.CANCEL_MAINTENANCE, PoolState.REMOVED),
        PoolState.CANCEL_MAINTENANCE: (PoolState.UP, PoolState.MAINTENANCE),
        PoolState.REMOVED: (),
    }
)
