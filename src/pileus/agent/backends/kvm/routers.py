"""Routers of a host wherever they live: each start goes where its spec says, everything else where the router is."""

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm.launcher import RouterLauncher
from pileus.wire.messages import VmSeen
from pileus.wire.operations import Reason, RouterFacts, RouterSpec
from pileus.wire.places import NetworkRef
from pileus.wire.router import RouterConfig


class Routers:
    """Both kinds as one `RouterLauncher`. The lives of one router come one after the other, of whatever kind."""

    def __init__(self, namespaces: RouterLauncher, machines: RouterLauncher) -> None:
        self._namespaces = namespaces
        self._machines = machines

    async def start(self, router: RouterSpec, config: RouterConfig, bridges: tuple[str, ...]) -> RouterFacts:
        """As `RouterLauncher.start`; a life of the other kind is an older one, and removed first."""
        here, other = self._namespaces, self._machines
        if router.machine is not None:
            here, other = other, here
        # Asking all routers of the other kind is for the rare case that this one is among them.
        if await other.networks_of(router.name):
            for seen in await other.seen():
                if seen.name == router.name and seen.epoch >= router.epoch:
                    raise Refused(Reason.STALE_EPOCH, f"epoch {seen.epoch} of {router.name} is here")
            await other.remove(router.name)
        return await here.start(router, config, bridges)

    async def configure(self, name: str, config: RouterConfig) -> RouterFacts:
        """As `RouterLauncher.configure`."""
        return await (await self._home_of(name)).configure(name, config)

    async def remove(self, name: str) -> None:
        """As `RouterLauncher.remove`."""
        await self._namespaces.remove(name)
        await self._machines.remove(name)

    async def seen(self) -> list[VmSeen]:
        """As `RouterLauncher.seen`."""
        return [*await self._namespaces.seen(), *await self._machines.seen()]

    async def networks_of(self, name: str) -> tuple[NetworkRef, ...]:
        """As `RouterLauncher.networks_of`."""
        return await self._namespaces.networks_of(name) or await self._machines.networks_of(name)

    async def revive(self) -> None:
        """As `RouterLauncher.revive`."""
        await self._namespaces.revive()
        await self._machines.revive()

    async def _home_of(self, name: str) -> RouterLauncher:
        return self._machines if await self._machines.networks_of(name) else self._namespaces
