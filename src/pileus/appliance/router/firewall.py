"""The packet filter and NAT of the router, changed by one transaction from what is in place to what is wanted."""

import asyncio
from collections.abc import Mapping

from pileus.appliance.router import netlink, rules, sets
from pileus.appliance.router.nftables import Nftables
from pileus.wire.appliance import AddressTraffic, RuleTraffic
from pileus.wire.router import RouterConfig

MANY = 2000
"""More changed elements than this are given to nft as text: that has no limit."""


class Firewall:
    """Part of the router that owns our nftables table."""

    def __init__(self, nftables: Nftables, *, guest: str, public: str) -> None:
        self._nftables = nftables
        self._guest = guest
        self._public = public
        self._in_place: rules.Ruleset | None = None
        """None when the kernel's state is not known: after a start, and after a failure."""
        self._config: RouterConfig | None = None
        """Whose rules are in place."""

    async def apply(self, config: RouterConfig | None) -> None:
        """Rules of `config`, or a closed door when it is None; all of them or no change."""
        if config is None:
            self._in_place = self._config = None
            await self._nftables.load(CLOSED)
            return
        before, self._in_place = self._in_place, None
        wanted = rules.ruleset(config, guest=self._guest, public=self._public, before=before)
        if before is None:
            counted = {name: await asyncio.to_thread(netlink.counted, name) for name in _COUNTING}
            await self._nftables.load(rules.whole(wanted, counted))
        else:
            await self._change(before, wanted)
        self._in_place, self._config = wanted, config

    async def _change(self, before: rules.Ruleset, wanted: rules.Ruleset) -> None:
        delta = rules.delta(before, wanted)
        elements = sum(map(len, (*delta.gone.values(), *delta.come.values())))
        if before.chains != wanted.chains or elements > MANY:
            await self._nftables.load(rules.reshaped(before, wanted))
        elif elements:
            await asyncio.to_thread(netlink.apply, delta)

    async def traffic(self) -> tuple[tuple[AddressTraffic, ...], tuple[RuleTraffic, ...]]:
        """Bytes by public address and by rule; raises StepFailed."""
        config, place = self._config, self._in_place
        if config is None or place is None:
            return (), ()
        counted = {name: await asyncio.to_thread(netlink.counted, name) for name in _COUNTING}
        addresses = tuple(
            AddressTraffic(one.ip, counted[sets.RECEIVED].get(one.ip, 0), counted[sets.SENT].get(one.ip, 0))
            for one in config.public
        )
        marks = {sets.marked(mark): rule for rule, mark in place.admission.marks.items()}
        admitted = _by_rule(marks, counted[sets.LET_IN], counted[sets.LET_OUT])
        return addresses, admitted + _by_rule(rules.entries(config), counted[sets.ENTERED], counted[sets.ANSWERED])


_COUNTING = tuple(name for name, kind in sets.SETS.items() if kind.counts)


def _by_rule(ids: Mapping[str, str], came: Mapping[str, int], went: Mapping[str, int]) -> tuple[RuleTraffic, ...]:
    return tuple(RuleTraffic(rule, came.get(element, 0), went.get(element, 0)) for element, rule in ids.items())


CLOSED = f"""add table {sets.TABLE}
delete table {sets.TABLE}
table {sets.TABLE} {{
chain input {{ type filter hook input priority filter; policy drop;
iifname "lo" accept
}}
chain forward {{ type filter hook forward priority filter; policy drop;
}}
}}
"""
