"""Pods. Guide: "Private Address Allocation"."""

from typing import Any

from sqlalchemy import RowMapping

from pileus.server.config import keys, value
from pileus.server.db.queries import pod as pods
from pileus.server.db.queries.page import related
from pileus.server.db.tables.place import zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.address import Range, address, range_in, subnet
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.host import AllocationState
from pileus.server.domain.ids import Id, Pod, Zone
from pileus.server.events import record_by, types
from pileus.server.services.choice import one_of
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds


def create(
    tx: Tx,
    caller: Caller,
    *,
    zone_id: Id[Zone],
    name: str,
    gateway: str,
    netmask: str,
    start_ip: str,
    end_ip: str | None,
    allocation_state: str | None,
) -> dict[str, Any]:
    """A new pod with its private addresses. Errors: a used name; a range outside, overlapping, or with the gateway."""
    checked_name(name, "name")
    if any(row["name"] == name for row in pods.in_zone(tx, zone_id)):
        raise ParameterError(f"the zone has a pod named {name} already", parameter="name")
    addresses = _range(tx, gateway, netmask, start_ip, end_ip, other_than=None, zone_id=zone_id)
    pod_id = pods.add(
        tx,
        zone_id=zone_id,
        name=name,
        gateway=gateway,
        netmask=netmask,
        start_ip=str(addresses.first),
        end_ip=str(addresses.last),
        allocation_state=str(one_of(AllocationState, allocation_state or "Enabled", "allocationstate")),
    )
    pods.set_addresses(tx, pod_id, {str(a) for a in addresses})
    _record(tx, caller, types.POD_CREATE, f"Pod {name} was created", pod_id)
    return view(tx, caller, pod_id)


def update(
    tx: Tx,
    caller: Caller,
    pod_id: Id[Pod],
    *,
    name: str | None,
    gateway: str | None,
    netmask: str | None,
    start_ip: str | None,
    end_ip: str | None,
    allocation_state: str | None,
) -> dict[str, Any]:
    """Change a pod. Addresses in use cannot leave its range (536)."""
    row = pods.by_id(tx, pod_id)
    changes: dict[str, Any] = {}
    if name is not None and name != row["name"]:
        checked_name(name, "name")
        if any(other["name"] == name for other in pods.in_zone(tx, row["zone_id"])):
            raise ParameterError(f"the zone has a pod named {name} already", parameter="name")
        changes["name"] = name
    if allocation_state is not None:
        changes["allocation_state"] = str(one_of(AllocationState, allocation_state, "allocationstate"))
    if any(value is not None for value in (gateway, netmask, start_ip, end_ip)):
        addresses = _range(
            tx,
            gateway or row["gateway"],
            netmask or row["netmask"],
            start_ip or row["start_ip"],
            end_ip or row["end_ip"],
            other_than=pod_id,
            zone_id=row["zone_id"],
        )
        if pods.addresses_in_use(tx, pod_id) and (gateway or netmask):
            raise ResourceInUse("system VMs use the pod's gateway and netmask: stop them first")
        busy = pods.set_addresses(tx, pod_id, {str(a) for a in addresses})
        if busy:
            raise ResourceInUse(f"the new range leaves out {busy[0]}, which a system VM uses")
        changes |= {
            "gateway": gateway or row["gateway"],
            "netmask": netmask or row["netmask"],
            "start_ip": str(addresses.first),
            "end_ip": str(addresses.last),
        }
    if changes:
        pods.change(tx, pod_id, **changes)
    _record(tx, caller, types.POD_EDIT, f"Pod {changes.get('name', row['name'])} was changed", pod_id)
    return view(tx, caller, pod_id)


def delete(tx: Tx, caller: Caller, pod_id: Id[Pod]) -> None:
    """Remove an empty pod; 536 says what still stands in it."""
    still_there = pods.users_of(tx, pod_id)
    if still_there:
        text = ", ".join(f"{n} {name}" for name, n in still_there.items())
        raise ResourceInUse(f"the pod still has {text}: remove them first")
    busy = pods.set_addresses(tx, pod_id, set())
    if busy:
        raise ResourceInUse(f"a system VM still uses {busy[0]} of the pod")
    pods.change(tx, pod_id, live=None, removed_at=tx.now)
    _record(tx, caller, types.POD_DELETE, f"Pod {pods.by_id(tx, pod_id)['name']} was deleted", pod_id)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    pod_id: int | None,
    zone_id: int | None,
    name: str | None,
    allocation_state: str | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Pods that match."""
    offset, limit = bounds(tx, page, page_size)
    rows, count = pods.matching(
        tx,
        pod_id=pod_id,
        zone_id=zone_id,
        name=name,
        allocation_state=one_of(AllocationState, allocation_state, "allocationstate") if allocation_state else None,
        keyword=keyword,
        offset=offset,
        limit=limit,
    )
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, pod_id: int) -> dict[str, Any]:
    """One pod, as lists show it."""
    return _views(tx, [pods.by_id(tx, pod_id)])[0]


def _range(
    tx: Tx, gateway: str, netmask: str, start: str, end: str | None, *, other_than: int | None, zone_id: int
) -> Range:
    network = subnet(gateway, netmask)
    found = range_in(network, start, end)
    if address(gateway, "gateway") in found:
        raise ParameterError(f"the range {found.first}-{found.last} holds the gateway {gateway}", parameter="startip")
    apart = value(tx, keys.check_pod_cidrs)
    for other in pods.all_live(tx):
        taken = subnet(other["gateway"], other["netmask"])
        if apart and other["id"] != other_than and other["zone_id"] == zone_id and network.overlaps(taken):
            raise ParameterError(
                f"the subnet {network} overlaps {taken} of pod {other['name']}"
                " (the setting check.pod.cidrs demands different ones)",
                parameter="netmask",
            )
        theirs = Range(address(other["start_ip"], "startip"), address(other["end_ip"], "endip"))
        if other["id"] != other_than and found.overlaps(theirs):
            raise ParameterError(
                f"the range overlaps {theirs.first}-{theirs.last} of pod {other['name']}", parameter="startip"
            )
    return found


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "zone_id": zones[row["zone_id"]]["uuid"],
            "zone_name": zones[row["zone_id"]]["name"],
            "gateway": row["gateway"],
            "netmask": row["netmask"],
            "start_ip": row["start_ip"],
            "end_ip": row["end_ip"],
            "allocation_state": row["allocation_state"],
        }
        for row in rows
    ]


def _record(tx: Tx, caller: Caller, event: str, text: str, pod_id: int) -> None:
    record_by(tx, caller, event, text, kind="Pod", id=pod_id)
