"""Where a guest would be placed, without placing it. Users learn whether, and in general why not; root learns hosts."""

from typing import Any

from pileus.server.db.tables.column import new_uuid
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.storage import VolumeKind
from pileus.server.placement.decision import Decision
from pileus.server.placement.demand import Demand
from pileus.server.placement.place import explain as explain_place
from pileus.server.placement.reasons import FOR_USERS, OF_KIND, Reason
from pileus.server.services.vm_deploy import Order, demand_of

MOST_TOLD = 500
"""Refused hosts that are told one by one."""


def explain(tx: Tx, caller: Caller, order: Order) -> dict[str, Any]:
    """What deploying the order would come to now. Nothing is claimed or written.

    Errors: those of an order that cannot be deployed whatever room there is (431, 531).
    """
    demand = demand_of(tx, caller, order)
    decision = explain_place(tx, demand, refusals=MOST_TOLD if caller.is_admin else 1, seed=new_uuid())
    found = {"possible": decision.host is not None}
    if not caller.is_admin:
        return {**found, "summary": _for_users(decision)}
    return {**found, **_for_administrators(demand, decision)}


def _for_users(decision: Decision) -> str:
    if decision.host is not None:
        return "there is room for the virtual machine"
    # No host of the zone at all is told as if those there are could not be used: users learn of no hosts.
    reasons = sorted(decision.counts) or [Reason.STATE]
    return "; ".join(dict.fromkeys(FOR_USERS[reason] for reason in reasons))


def _for_administrators(demand: Demand, decision: Decision) -> dict[str, Any]:
    chosen = decision.host
    summary = decision.text(demand.name) if chosen is None else f"it would go to host {chosen.name}"
    refused = sum(decision.counts.values())
    return {
        "summary": summary,
        "host_id": chosen.uuid if chosen else None,
        "host_name": chosen.name if chosen else None,
        "storage_pool": [
            {
                "volume_type": str(VolumeKind.ROOT if volume == 0 else VolumeKind.DATADISK),
                "id": pool.uuid,
                "name": pool.name,
            }
            for volume, pool in sorted(decision.pools.items())
        ],
        "hosts_with_room": decision.fitting,
        "hosts_refused": refused,
        "refusal_kind": [
            {"reason": OF_KIND[reason], "hosts": hosts} for reason, hosts in sorted(decision.counts.items())
        ],
        "refusal": [
            {"host_id": each.host.uuid, "host_name": each.host.name, "reason": each.text} for each in decision.refusals
        ],
    }
