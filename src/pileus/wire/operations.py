"""What a server may ask of a host. One Struct per operation, idempotent, named for the state it brings about.

An operation carries everything its host needs: an agent never asks back. The agent journals the id of the
`Deliver` that carried it, so a second delivery returns the first answer; that
something has started is said again only while it runs.
"""

from enum import StrEnum

from msgspec import Struct

from pileus.wire.places import DiskSpec, NicSpec, PoolRef
from pileus.wire.router import RouterConfig


class Operation(Struct, frozen=True, tag_field="op"):
    """Base of all operations; the tag is the class name."""


# ---- primary storage


class AttachPool(Operation, frozen=True, tag=True):
    """Make the pool usable on this host. Answers PoolFacts."""

    pool: PoolRef


class DetachPool(Operation, frozen=True, tag=True):
    """Stop using the pool on this host; its files stay. Answers Done."""

    pool: PoolRef


class FetchTemplate(Operation, frozen=True, tag=True):
    """Copy an image from secondary storage into the pool as a plain qcow2 named `name`. Answers ImageFacts.

    `url` is an https address of the zone's secondary storage, fetched with the agent's own certificate.
    Progress is reported. A half copy is never visible under `name`.
    """

    pool: PoolRef
    name: str
    url: str
    sha256: str


class RemoveTemplate(Operation, frozen=True, tag=True):
    """Make sure the pool holds no template `name`. Answers Done."""

    pool: PoolRef
    name: str


class CreateVolume(Operation, frozen=True, tag=True):
    """Make sure volume `name` exists: a clone of `template`, or blank when it is empty. Answers ImageFacts.

    `size_bytes` is the virtual size; a clone is never smaller than its template.
    """

    pool: PoolRef
    name: str
    size_bytes: int
    template: str = ""


class DeleteVolume(Operation, frozen=True, tag=True):
    """Make sure the pool holds no volume `name`. Answers Done."""

    pool: PoolRef
    name: str


# ---- guests


class VmSpec(Struct, frozen=True):
    """One life of a guest on one host. `epoch` grows with every life: an older one may not act any more."""

    name: str
    uuid: str
    epoch: int
    cpus: int
    cpu_mhz: int
    ram_mib: int
    disks: tuple[DiskSpec, ...]
    nics: tuple[NicSpec, ...]
    vnc_password: str
    limit_cpu: bool = False
    iso: str = ""
    os_type: str = ""


class StartVm(Operation, frozen=True, tag=True):
    """Have the guest running in this epoch; plug the bridges it needs. Answers VmFacts."""

    vm: VmSpec


class StopVm(Operation, frozen=True, tag=True):
    """Make sure the guest does not run here in `epoch` or any older one; unplug what only it used. Answers Done.

    A graceful stop asks the guest's operating system and pulls the power after `grace_seconds`.
    """

    name: str
    uuid: str
    epoch: int
    forced: bool = False
    grace_seconds: int = 60


class RebootVm(Operation, frozen=True, tag=True):
    """Stop the guest gracefully (force after `grace_seconds`) and start it again on the same disks. Answers VmFacts."""

    vm: VmSpec
    grace_seconds: int = 60


# ---- virtual routers


class RouterMachine(Struct, frozen=True):
    """A virtual machine of its own for a router: booted from the system template at `url`."""

    url: str
    sha256: str


class RouterSpec(Struct, frozen=True):
    """One life of a virtual router. The first NIC is the guest side, the second (if any) the public side.

    Without a `machine` the router is a network namespace of its host.
    """

    name: str
    uuid: str
    epoch: int
    nics: tuple[NicSpec, ...]
    cpus: int = 1
    cpu_mhz: int = 500
    ram_mib: int = 128
    machine: RouterMachine | None = None


class StartRouter(Operation, frozen=True, tag=True):
    """Have the router running in this epoch with this config applied. Answers RouterFacts."""

    router: RouterSpec
    config: RouterConfig


class ConfigureRouter(Operation, frozen=True, tag=True):
    """Apply the whole desired config; an older generation than the applied one is refused. Answers RouterFacts."""

    name: str
    epoch: int
    config: RouterConfig


class StopRouter(Operation, frozen=True, tag=True):
    """Make sure the router does not run here in `epoch` or any older one. Answers Done."""

    name: str
    uuid: str
    epoch: int


# ---- secondary storage


class ImageFormat(StrEnum):
    """The guide's image formats; the first two are accepted now."""

    QCOW2 = "QCOW2"
    RAW = "RAW"
    VHD = "VHD"
    OVA = "OVA"
    ISO = "ISO"


class DownloadTemplate(Operation, frozen=True, tag=True):
    """Fetch an image into secondary storage as `name`, inspected and checksummed. Answers ImageFacts.

    `url` may end in .gz or .bz2. `checksum` is the MD5 or SHA-256 hex digest of what the URL serves, or empty.
    Addresses are checked after every redirect and DNS answer: loopback, link-local and private ranges are
    refused unless inside one of `allowed_cidrs`. Progress is reported.
    """

    name: str
    url: str
    format: ImageFormat
    checksum: str
    max_bytes: int
    allowed_cidrs: tuple[str, ...] = ()


class DeleteImage(Operation, frozen=True, tag=True):
    """Make sure secondary storage holds no image `name`. Answers Done."""

    name: str


AnyOperation = (
    AttachPool
    | DetachPool
    | FetchTemplate
    | RemoveTemplate
    | CreateVolume
    | DeleteVolume
    | StartVm
    | StopVm
    | RebootVm
    | StartRouter
    | ConfigureRouter
    | StopRouter
    | DownloadTemplate
    | DeleteImage
)


# ---- what a host answers


class Result(Struct, frozen=True, tag_field="result"):
    """Base of all good answers."""


class Done(Result, frozen=True, tag=True):
    """It is so; nothing more to say."""


class PoolFacts(Result, frozen=True, tag=True):
    """Size of a pool in bytes."""

    capacity_bytes: int
    available_bytes: int


class ImageFacts(Result, frozen=True, tag=True):
    """An image or volume. `url` is where hosts fetch it from, when it lies on secondary storage."""

    virtual_bytes: int
    physical_bytes: int
    sha256: str = ""
    url: str = ""


class VmFacts(Result, frozen=True, tag=True):
    """A running guest. `vnc_host:vnc_port` is its console."""

    vnc_host: str
    vnc_port: int


class RouterFacts(Result, frozen=True, tag=True):
    """The config a router runs: generation, and hash of the config as `router.fingerprint` computes it."""

    generation: int
    fingerprint: str


AnyResult = Done | PoolFacts | ImageFacts | VmFacts | RouterFacts


class Reason(StrEnum):
    """Why a host said no. The server decides by this, never by the text."""

    NO_ROOM = "no-room"
    """Not enough CPU, memory or space here: another host may do."""
    STALE_EPOCH = "stale-epoch"
    """A newer life of the guest, or a newer generation of the config, is known here."""
    MISSING = "missing"
    """Something the operation builds on is not there (template, pool, volume)."""
    REJECTED = "rejected"
    """The input itself is bad (image with a backing file, forbidden address, wrong checksum): never retry."""
    UNREACHABLE = "unreachable"
    """A third party (URL, storage server) did not answer: a retry may do."""
    FAILED = "failed"
    """The host tried and could not; the text says why."""


class Refusal(Struct, frozen=True):
    """A host's no."""

    reason: Reason
    text: str


class Refused(Exception):
    """A host's no as its parts raise it; becomes the `Refusal` of the answer."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text
