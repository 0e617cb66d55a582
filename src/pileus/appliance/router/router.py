"""The router itself: takes a whole config, and has either all of it in place or the one before."""

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from pileus.appliance.router.addresses import Addresses
from pileus.appliance.router.checks import check
from pileus.appliance.router.dnsmasq import Dnsmasq
from pileus.appliance.router.errors import ConfigRefused, StepFailed
from pileus.appliance.router.firewall import Firewall
from pileus.appliance.router.haproxy import Haproxy
from pileus.appliance.router.nftables import nftables
from pileus.appliance.router.pages import Pages
from pileus.appliance.router.reading import Reader
from pileus.appliance.router.store import Applied, Store, described
from pileus.appliance.router.vpn import Machine, Vpn
from pileus.wire.appliance import AddressTraffic, RouterCounters, RuleTraffic
from pileus.wire.operations import Reason, RouterFacts
from pileus.wire.router import RouterConfig

INTERFACE_COUNTERS = Path("/proc/net/dev")

log = structlog.get_logger()


class Part(Protocol):
    """One aspect of a router. Applying is idempotent, touches differences only, and may raise StepFailed."""

    async def apply(self, config: RouterConfig | None) -> None: ...


@dataclass(frozen=True)
class Sides:
    """Names of the interfaces; `public` is "" when the router has no public side."""

    guest: str
    public: str


class Router:
    """Owner of everything in its network namespace (or machine). `files` is a directory that everyone may read.

    Only with a `machine` of its own it lets in by VPN.
    """

    def __init__(self, sides: Sides, *, state: Path, files: Path, machine: Machine | None = None) -> None:
        self.reader = Reader()
        """Reads messages for this router, whichever way they come."""
        self._sides = sides
        self._store = Store(state)
        self._applied: Applied | None = None
        self._uncertain = False
        """True while something may not be as `_applied` says."""
        self._lock = asyncio.Lock()
        self._began = time.monotonic()
        self._dnsmasq = Dnsmasq(device=sides.guest, files=files, lease_file=self._store.lease_file)
        self._pages = Pages(frozenset(self._store.saved()), self._keep_saved)
        self._firewall = Firewall(nftables(), guest=sides.guest, public=sides.public)
        self._vpn = Vpn(machine) if machine else None
        self._haproxy = Haproxy(state / "haproxy")
        # Rules come before the addresses they guard, addresses before the services that listen on them.
        self._parts: tuple[Part, ...] = (
            self._firewall,
            Addresses(guest=sides.guest, public=sides.public),
            self._dnsmasq,
            self._pages,
            self._haproxy,
            *([self._vpn] if self._vpn else []),
        )

    async def restore(self) -> None:
        """Apply the config of the last life, if there was one.

        Where that fails the router comes up with what it could do and reports no config: the next one is applied whole.
        """
        async with self._lock:
            try:
                applied = self._store.applied()
                await self._bring(applied.config if applied else None)
                self._applied = applied
            except (StepFailed, OSError, ValueError) as error:
                log.error("the last config could not be applied", error=str(error))

    async def configure(self, config: RouterConfig) -> RouterFacts:
        """Have `config` in place; raises ConfigRefused, and then the config before is in place still.

        An older generation than the applied one is refused (STALE_EPOCH); the very same one changes nothing.
        """
        async with self._lock:
            before = self._applied
            if config.vpn is not None and self._vpn is None:
                raise ConfigRefused(Reason.REJECTED, "vpn: this router has no machine of its own, which a VPN needs")
            check(config, has_public_side=bool(self._sides.public), before=before.config if before else None)
            wanted = described(config)
            if before is not None:
                known = before.config.generation
                if config.generation < known:
                    raise ConfigRefused(Reason.STALE_EPOCH, f"generation {config.generation} is older than {known}")
                if before.facts() == wanted.facts() and not self._uncertain:
                    return wanted.facts()
            await self._replace(before, wanted)
            return wanted.facts()

    async def close(self) -> None:
        """Stop the services; rules and addresses stay, so that a new start disturbs no connection."""
        async with self._lock:
            await self._dnsmasq.stop()
            await self._haproxy.stop()
            if self._vpn:
                await self._vpn.stop()
            await self._pages.apply(None)

    @property
    def facts(self) -> RouterFacts | None:
        """What is applied, None before the first config."""
        return self._applied.facts() if self._applied else None

    async def counters(self, *, traffic: bool) -> RouterCounters:
        """What happened since the start; with `traffic`, by address and rule, too."""
        interfaces = _traffic()
        public = interfaces.get(self._sides.public, (0, 0))
        guest = interfaces.get(self._sides.guest, (0, 0))
        addresses, rules = await self._counted() if traffic else ((), ())
        return RouterCounters(
            uptime_seconds=time.monotonic() - self._began,
            public_received_bytes=public[0],
            public_sent_bytes=public[1],
            guest_received_bytes=guest[0],
            guest_sent_bytes=guest[1],
            pages_served=self._pages.pages_served,
            passwords_served=self._pages.passwords_served,
            dnsmasq_starts=self._dnsmasq.starts,
            addresses=addresses,
            rules=rules,
        )

    async def _counted(self) -> tuple[tuple[AddressTraffic, ...], tuple[RuleTraffic, ...]]:
        async with self._lock:
            try:
                return await self._firewall.traffic()
            except StepFailed as error:
                log.error("traffic cannot be counted", error=str(error))
                return (), ()

    async def _replace(self, before: Applied | None, wanted: Applied) -> None:
        try:
            await self._bring(wanted.config)
            self._store.keep_applied(wanted, self._pages.saved)
        except (StepFailed, OSError) as error:
            await self._go_back(before)
            raise ConfigRefused(Reason.FAILED, f"the config could not be applied: {error}") from error
        self._applied = wanted
        self._uncertain = False
        self._pages.prune()
        log.info("config applied", generation=wanted.config.generation, fingerprint=wanted.fingerprint)

    async def _go_back(self, before: Applied | None) -> None:
        for part in self._parts:
            try:
                await part.apply(before.config if before else None)
            except StepFailed as error:
                # The other parts go back all the same.
                self._uncertain = True
                log.error("going back failed", part=type(part).__name__, error=str(error))

    async def _bring(self, config: RouterConfig | None) -> None:
        for part in self._parts:
            await part.apply(config)

    def _keep_saved(self, ids: frozenset[str]) -> None:
        self._store.keep_saved(ids)
        if self._applied is not None:
            # The password itself leaves the disk with this.
            self._store.keep_applied(self._applied, ids)


def _traffic() -> dict[str, tuple[int, int]]:
    """Bytes received and sent by interface of this network namespace."""
    traffic = {}
    for line in INTERFACE_COUNTERS.read_text().splitlines()[2:]:
        name, _, numbers = line.partition(":")
        columns = numbers.split()
        traffic[name.strip()] = (int(columns[0]), int(columns[8]))
    return traffic
