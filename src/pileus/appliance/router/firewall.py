"""The packet filter and NAT of the router, changed by one transaction from what is in place to what is wanted."""

from pileus.appliance.router import rules
from pileus.appliance.router.nftables import Nftables
from pileus.wire.router import RouterConfig


class Firewall:
    """Part of the router that owns our nftables table."""

    def __init__(self, nftables: Nftables, *, guest: str, public: str) -> None:
        self._nftables = nftables
        self._guest = guest
        self._public = public
        self._in_place: rules.Ruleset | None = None
        """None when the kernel's state is not known: after a start, and after a failure."""

    async def apply(self, config: RouterConfig | None) -> None:
        """Rules of `config`, or a closed door when it is None; all of them or no change."""
        if config is None:
            self._in_place = None
            await self._nftables.load(CLOSED)
            return
        wanted = rules.ruleset(config, guest=self._guest, public=self._public)
        commands = rules.whole(wanted) if self._in_place is None else rules.change(self._in_place, wanted)
        if not commands:
            return
        self._in_place = None
        await self._nftables.load(commands)
        self._in_place = wanted


CLOSED = f"""add table {rules.TABLE}
delete table {rules.TABLE}
table {rules.TABLE} {{
chain input {{ type filter hook input priority filter; policy drop;
iifname "lo" accept
}}
chain forward {{ type filter hook forward priority filter; policy drop;
}}
}}
"""
