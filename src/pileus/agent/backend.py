"""The seam between the agent and a hypervisor: what a backend must be able to do, and nothing of how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pileus.wire.messages import HostFacts, HostStats, VmChange, VmSeen
from pileus.wire.operations import (
    DownloadTemplate,
    FetchTemplate,
    ImageFacts,
    PoolFacts,
    RouterFacts,
    RouterSpec,
    VmFacts,
    VmSpec,
)
from pileus.wire.operations import Refused as Refused
from pileus.wire.places import NetworkRef, PoolRef
from pileus.wire.router import RouterConfig

Progressed = Callable[[int, str], None]
"""Called with percent (0 to 100) and a short text while long work goes on."""

Noticed = Callable[[str, str, int, VmChange], None]
"""Called with name, UUID, epoch and change when a guest changes without having been asked."""


@dataclass(frozen=True)
class Credentials:
    """Files (PEM) with which a host proves itself to secondary storage."""

    certificate: str
    key: str
    ca: str


@dataclass(frozen=True)
class HostSettings:
    """What `create` of a backend or image store is given for one host.

    `state_dir` belongs to this host alone and exists. `address` is where other hosts reach this one.
    `options` is the host's own part of the agent's configuration file, read by nobody but the backend.
    """

    host_uuid: str
    state_dir: str
    address: str
    credentials: Credentials
    options: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Atomics of one routing host. Each is idempotent, and brings about a state rather than a change.

    All may raise `Refused`; anything else they raise is answered as `Reason.FAILED`. Calls for one guest come one
    after the other; calls for different guests come at the same time.
    """

    async def open(self, noticed: Noticed) -> None:
        """Connect to the hypervisor and watch its lifecycle events."""

    async def close(self) -> None:
        """Let go of the hypervisor; guests run on."""

    async def facts(self) -> HostFacts: ...

    async def stats(self, host_uuid: str) -> HostStats: ...

    async def inventory(self) -> list[VmSeen]:
        """Every guest and router of ours on this host, off ones included."""

    async def attached_pools(self) -> list[str]:
        """UUIDs of pools that certainly are attached and need not be attached again; none is always right."""

    # storage
    async def attach_pool(self, pool: PoolRef) -> PoolFacts: ...

    async def detach_pool(self, pool: PoolRef) -> None: ...

    async def fetch_template(self, order: FetchTemplate, progressed: Progressed) -> ImageFacts: ...

    async def remove_template(self, pool: PoolRef, name: str) -> None: ...

    async def create_volume(self, pool: PoolRef, name: str, size_bytes: int, template: str) -> ImageFacts: ...

    async def delete_volume(self, pool: PoolRef, name: str) -> None: ...

    # networks
    async def plug_network(self, network: NetworkRef) -> None:
        """Make the bridge of the network, if it is not there."""

    async def unplug_network(self, network: NetworkRef) -> None:
        """Remove the bridge of the network, if nothing uses it any more."""

    # guests
    async def seen(self, name: str) -> VmSeen | None:
        """What is there under this name now, asked of the hypervisor and not of memory."""

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        """The networks the named guest or router is plugged into, for `unplug_network` after it is gone."""

    async def start_domain(self, vm: VmSpec) -> VmFacts:
        """Define and start the guest; a no-op when it runs in the same epoch already."""

    async def shut_down(self, name: str, grace_seconds: float) -> bool:
        """Ask the guest's operating system to stop and wait; True when it is off."""

    async def remove_domain(self, name: str) -> None:
        """Pull the power if it runs, and undefine it. Disks stay."""

    # routers
    async def start_router(self, router: RouterSpec, config: RouterConfig) -> RouterFacts: ...

    async def configure_router(self, name: str, config: RouterConfig) -> RouterFacts: ...

    async def remove_router(self, name: str) -> None: ...


class ImageStore(Protocol):
    """Atomics of one secondary storage host."""

    async def open(self) -> None:
        """Start serving images to the zone's hosts."""

    async def close(self) -> None: ...

    async def facts(self) -> HostFacts: ...

    async def stats(self, host_uuid: str) -> HostStats: ...

    async def renewed(self) -> None:
        """The files of the host's credentials hold a new pair: it is shown to whoever connects from now on."""

    async def download(self, order: DownloadTemplate, progressed: Progressed) -> ImageFacts: ...

    async def delete(self, name: str) -> None: ...
