"""What the cloud has and uses, for administrators. Guide: "Capacity"."""

from typing import Any

from pileus.server.db.queries import capacity_sums
from pileus.server.db.queries.page import related
from pileus.server.db.tables.place import cluster, pod, zone
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.capacity import CapacityType, summed
from pileus.server.domain.errors import ParameterError
from pileus.server.services.paging import bounds

_NAMES = {each: each.name for each in CapacityType}


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    type_number: int | None,
    zone_id: int | None,
    pod_id: int | None,
    cluster_id: int | None,
    host_id: int | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Sums per pod, and per zone of what belongs to whole zones; of one cluster or host where one is given."""
    kind = None if type_number is None else _kind(type_number)
    found = capacity_sums.everywhere(tx, host_id=host_id)
    wanted = [
        each
        for each in summed(found, clusters=cluster_id is not None or host_id is not None)
        if kind in (None, each.type)
        and zone_id in (None, each.zone_id)
        and pod_id in (None, each.pod_id)
        and cluster_id in (None, each.cluster_id)
        and (not keyword or keyword.lower() in _NAMES[each.type].lower())
    ]
    offset, limit = bounds(tx, page, page_size)
    shown = wanted[offset : offset + limit]
    zones = related(tx, zone, (each.zone_id for each in shown))
    pods = related(tx, pod, (each.pod_id for each in shown))
    clusters = related(tx, cluster, (each.cluster_id for each in shown))
    views = []
    for each in shown:
        there, group = pods.get(each.pod_id or 0), clusters.get(each.cluster_id or 0)
        views.append(
            {
                "type": int(each.type),
                "name": _NAMES[each.type],
                "zone_id": zones[each.zone_id]["uuid"],
                "zone_name": zones[each.zone_id]["name"],
                "pod_id": there["uuid"] if there else None,
                "pod_name": there["name"] if there else None,
                "cluster_id": group["uuid"] if group else None,
                "cluster_name": group["name"] if group else None,
                "capacity_used": each.used,
                "capacity_total": each.total,
                "percent_used": f"{100 * each.share:.2f}",
            }
        )
    return views, len(wanted)


def _kind(number: int) -> CapacityType:
    try:
        return CapacityType(number)
    except ValueError:
        known = ", ".join(f"{int(each)} ({each.name.lower().replace('_', ' ')})" for each in CapacityType)
        raise ParameterError(f"type is one of {known}", parameter="type") from None
