"""Where virtual routers live: the seam between the KVM backend and whatever runs the router appliance."""

from typing import Protocol

from pileus.wire.messages import VmSeen
from pileus.wire.operations import RouterFacts, RouterSpec
from pileus.wire.places import NetworkRef
from pileus.wire.router import RouterConfig


class RouterLauncher(Protocol):
    """Lives of routers on one host. All is idempotent; calls for one router wait for each other.

    What cannot be done raises `agent.backend.Refused`.
    """

    async def start(self, router: RouterSpec, config: RouterConfig, bridges: tuple[str, ...]) -> RouterFacts:
        """Have the router running in this epoch with `config` applied; `bridges` has one bridge for each of its NICs.

        An older life that is still there is removed first. Refused: STALE_EPOCH when a newer one is known.
        """

    async def configure(self, name: str, config: RouterConfig) -> RouterFacts:
        """Apply `config`. Refused: MISSING when there is no such router, else as the appliance says."""

    async def remove(self, name: str) -> None:
        """Make sure that nothing of the router is left."""

    async def seen(self) -> list[VmSeen]:
        """Every router that is here, half-made ones too. `running` is True for those that answer."""

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        """The networks that the router is, or was to be, plugged into; empty when it is not here."""

    async def revive(self) -> None:
        """Start again what should run and does not, as far as that disturbs nobody. After an agent's own start."""
