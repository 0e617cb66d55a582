"""Things on a host that operations name: networks, pools, disks and NICs.

Every name here is chosen by the server and is safe as a file name and as an argument (`[A-Za-z0-9._-]`).
"""

from enum import StrEnum

from msgspec import Struct


class Isolation(StrEnum):
    """How frames of one network are kept apart from those of others."""

    VXLAN = "vxlan"
    VLAN = "vlan"
    UNTAGGED = "untagged"


class Traffic(StrEnum):
    """What a network carries; a host maps each kind to a physical device of its own."""

    GUEST = "Guest"
    PUBLIC = "Public"
    CONTROL = "Control"


class NetworkRef(Struct, frozen=True):
    """A network as a host sees it. `tag` is the VNI or the VLAN id, 0 when untagged."""

    traffic: Traffic
    isolation: Isolation
    tag: int


class PoolKind(StrEnum):
    """The guide's kinds of primary storage that a host can reach."""

    FILESYSTEM = "Filesystem"
    SHARED_MOUNT_POINT = "SharedMountPoint"
    NETWORK_FILESYSTEM = "NetworkFilesystem"


class PoolRef(Struct, frozen=True):
    """A primary storage pool. `path` is the directory on the host, or the export when `server` is set."""

    uuid: str
    kind: PoolKind
    path: str
    server: str = ""


class DiskSpec(Struct, frozen=True):
    """A volume given to a guest. `device_id` 0 is the root disk; `volume` is the file name in the pool."""

    pool: PoolRef
    volume: str
    device_id: int


class NicSpec(Struct, frozen=True):
    """A network card of a guest or router. `prefix` is the netmask's length; `rate_mbps` 0 means no limit."""

    mac: str
    ip: str
    prefix: int
    network: NetworkRef
    device_id: int
    default: bool = True
    rate_mbps: int = 0
    gateway: str = ""
