"""Hosts and secondary storage. Guide: "Working with Hosts", "Secondary Storage"."""

import hashlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from sqlalchemy import RowMapping

from pileus.server.config import keys, value
from pileus.server.db.queries import cluster as clusters
from pileus.server.db.queries import host as hosts
from pileus.server.db.queries import pod as pods
from pileus.server.db.queries import storage_pool as pools
from pileus.server.db.queries.page import grouped, related
from pileus.server.db.tables.host import host, host_capacity, host_stats, host_tag
from pileus.server.db.tables.place import cluster, pod, zone
from pileus.server.db.tables.template import os_category
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.host import HOST, AllocationState, HostState, Hypervisor
from pileus.server.domain.ids import Cluster, Host, Id, OsCategory, Pod, Zone
from pileus.server.events import record_by, types
from pileus.server.hosts import fleets, operations
from pileus.server.hosts.enrolment import revoke
from pileus.server.jobs.reconciler import trigger
from pileus.server.jobs.submit import wake
from pileus.server.services import storage_pool
from pileus.server.services.choice import one_of
from pileus.server.services.cluster import added, hypervisor_of_hosts
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds
from pileus.server.services.place_url import place_of
from pileus.wire.messages import HostFacts, HostIntro, HostKind
from pileus.wire.simulated import behaviour

SHORTEST_TOKEN = 16
LONGEST_TAG = 128
LONGEST_URL = 1024
TOKEN_LIFE_MS = 24 * 3600 * 1000
_MIB = 1024**2


def add(
    tx: Tx,
    caller: Caller,
    *,
    zone_id: Id[Zone],
    pod_id: Id[Pod] | None,
    cluster_id: Id[Cluster] | None,
    cluster_name: str | None,
    hypervisor: str,
    url: str,
    password: str,
    allocation_state: str | None,
    tags: list[str] | None,
) -> dict[str, Any]:
    """Expect a new host: its agent enrols with `password` as the one-time secret, and the host comes up by itself.

    A simulated host is made by the fleet that takes it first, and any password will do. Errors: a used name, a cluster
    of another hypervisor, a secret that is too short or was used before.
    """
    kind = hypervisor_of_hosts(hypervisor)
    group = _cluster(tx, caller, zone_id, pod_id, cluster_id, cluster_name, kind)
    if group["hypervisor"] != kind:
        raise ParameterError(
            f"cluster {group['name']} takes {group['hypervisor']} hosts, not {kind}", parameter="hypervisor"
        )
    name = _host_name(url)
    if hosts.named(tx, zone_id, name) is not None:
        raise ParameterError(f"the zone has a host named {name} already", parameter="url")
    host_id = hosts.add(
        tx,
        name=name,
        kind=str(HostKind.ROUTING),
        state=str(HostState.CONNECTING),
        zone_id=zone_id,
        pod_id=group["pod_id"],
        cluster_id=group["id"],
        hypervisor=str(kind),
        url=_url(url, kind),
        allocation_state=str(one_of(AllocationState, allocation_state or "Enabled", "allocationstate")),
    )
    if kind is Hypervisor.SIMULATOR:
        _simulate(tx, host_id, password)
    else:
        expect_agent(tx, host_id, password, "password")
    hosts.set_tags(tx, host_id, _tags(tags or []))
    _record(tx, caller, types.HOST_CREATE, f"Host {name} was added", host_id)
    return view(tx, caller, host_id)


def add_first(
    tx: Tx, caller: Caller, cluster_id: int, *, url: str, password: str | None, allocation_state: str | None
) -> None:
    """The first host of a new cluster, named by the URL with which the cluster was added; of simulated ones only."""
    row = clusters.by_id(tx, cluster_id)
    if row["hypervisor"] != Hypervisor.SIMULATOR:
        return
    add(
        tx,
        caller,
        zone_id=row["zone_id"],
        pod_id=row["pod_id"],
        cluster_id=row["id"],
        cluster_name=None,
        hypervisor=row["hypervisor"],
        url=url,
        password=password or "",
        allocation_state=allocation_state,
        tags=None,
    )


def add_secondary_storage(tx: Tx, caller: Caller, *, zone_id: Id[Zone], url: str, token: str | None) -> dict[str, Any]:
    """Expect the zone's secondary storage: the agent that serves it enrols with `token`. One per zone."""
    where = place_of(url, "url")
    if where.scheme not in ("nfs", "file", "http", "https") or not (where.path or where.host):
        raise ParameterError("url must be like nfs://server/export or file:///directory", parameter="url")
    there = hosts.secondary_storage_of(tx, zone_id)
    if there is not None:
        raise ParameterError(f"the zone has secondary storage already: {there['name']}", parameter="zoneid")
    if token is None:
        raise ParameterError(
            f"token is required: a one-time secret of at least {SHORTEST_TOKEN} characters, with which the agent that "
            "serves the storage enrols (pileus token makes one)",
            parameter="token",
        )
    host_id = hosts.add(
        tx,
        name=where.shown,
        kind=str(HostKind.SECONDARY_STORAGE),
        state=str(HostState.CONNECTING),
        zone_id=zone_id,
        hypervisor=str(Hypervisor.NONE),
        url=where.shown,
    )
    expect_agent(tx, host_id, token, "token")
    _record(tx, caller, types.IMAGE_STORE_CREATE, f"Secondary storage {where.shown} was added", host_id)
    return view(tx, caller, host_id)


def update(
    tx: Tx,
    caller: Caller,
    host_id: Id[Host],
    *,
    os_category_id: Id[OsCategory] | None,
    allocation_state: str | None,
    tags: list[str] | None,
) -> dict[str, Any]:
    """Change a host's OS preference, whether it takes new guests, and its tags."""
    changes: dict[str, Any] = {}
    if os_category_id is not None:
        changes["os_category_id"] = os_category_id
    if allocation_state is not None:
        changes["allocation_state"] = str(one_of(AllocationState, allocation_state, "allocationstate"))
    if changes:
        hosts.change(tx, host_id, **changes)
    if tags is not None:
        hosts.set_tags(tx, host_id, _tags(tags))
    return view(tx, caller, host_id)


def delete(tx: Tx, caller: Caller, host_id: Id[Host]) -> None:
    """Remove a host on which nothing lives; its agent can never connect again, and whoever waits for it is told.

    536 while guests or routers live on it, or while it is the secondary storage of templates.
    """
    row = hosts.by_id(tx, host_id)
    lives = hosts.lives_on(tx, host_id)
    if lives:
        raise ResourceInUse(f"{lives} virtual machines live on the host: stop them or move them first")
    copies = hosts.templates_on(tx, host_id)
    if copies:
        raise ResourceInUse(f"the host holds {copies} templates: delete them first")
    if not transition(tx, host, host_id, HOST, HostState.REMOVED):
        raise ResourceInUse("the host is being removed already")
    for unanswered in operations.withdraw_all(tx, host_id, "the host was removed"):
        wake(tx, unanswered.topic)
    hosts.forget(tx, host_id)
    revoke(tx, host_id)
    wake(tx, f"host:{host_id}")
    if row["kind"] == HostKind.ROUTING:
        _record(tx, caller, types.HOST_DELETE, f"Host {row['name']} was deleted", host_id)
    else:
        _record(tx, caller, types.IMAGE_STORE_DELETE, f"Secondary storage {row['name']} was deleted", host_id)


def introduced(tx: Tx, host_id: int, facts: HostFacts) -> None:
    """A host has connected, with nothing attached."""
    row = hosts.by_id(tx, host_id)
    introduced_all(tx, [(host_id, HostIntro(row["uuid"], HostKind(row["kind"]), facts))])


def introduced_all(tx: Tx, intros: Sequence[tuple[int, HostIntro]]) -> None:
    """Hosts, some hundreds at most, have connected: count what guests may claim of them, give them their pools, let
    waiting jobs go on."""
    told = dict(intros)
    rows = hosts.live_among(tx, told)
    routing = [row for row in rows if row["kind"] == HostKind.ROUTING]
    factor = float(value(tx, keys.cpu_overprovisioning_factor))
    hosts.set_capacities(
        tx,
        {
            row["id"]: (int(facts.cpus * facts.cpu_mhz * factor), facts.memory_bytes // _MIB)
            for row in routing
            for facts in (told[row["id"]].facts,)
        },
    )
    in_cluster = pools.of_clusters(tx, {row["cluster_id"] for row in routing if row["cluster_id"] is not None})
    for row in routing:
        # What it does not say that it has is attached anew: a host that was switched off and on has mounted nothing.
        has = told[row["id"]].pools
        for pool in in_cluster.get(row["cluster_id"], ()):
            attached = pool["uuid"] in has and pools.is_attached(tx, pool["id"], row["id"])
            if not attached and not storage_pool.attaching(tx, pool["id"], row["id"], queued_only=True):
                storage_pool.attach(tx, pool["id"], row["id"])
    if len(routing) < len(rows):
        trigger(tx, "template-download")
    if rows:
        wake(tx, *(f"host:{row['id']}" for row in rows))


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    host_id: int | None,
    name: str | None,
    zone_id: int | None,
    pod_id: int | None,
    cluster_id: int | None,
    state: str | None,
    kind: str | None,
    vm_id: int | None,
    allocation_state: str | None,
    keyword: str | None,
    page: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Hosts that match."""
    offset, limit = bounds(tx, page, page_size)
    equal = {
        "id": host_id,
        "name": name,
        "zone_id": zone_id,
        "pod_id": pod_id,
        "cluster_id": cluster_id,
        "state": str(one_of(HostState, state, "state")) if state else None,
        "kind": str(one_of(HostKind, kind, "type")) if kind else None,
        "allocation_state": str(one_of(AllocationState, allocation_state, "allocationstate"))
        if allocation_state
        else None,
    }
    rows, count = hosts.matching(tx, equal, with_vm=vm_id, keyword=keyword, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, host_id: int) -> dict[str, Any]:
    """One host, as lists show it."""
    return _views(tx, [hosts.by_id(tx, host_id)])[0]


def _cluster(
    tx: Tx,
    caller: Caller,
    zone_id: int,
    pod_id: int | None,
    cluster_id: int | None,
    name: str | None,
    kind: Hypervisor,
) -> RowMapping:
    """The cluster of a new host: the one given, or the one of this name in the pod, made when it is not there."""
    if cluster_id is not None:
        row = clusters.by_id(tx, cluster_id)
        if row["zone_id"] != zone_id or (pod_id is not None and row["pod_id"] != pod_id):
            raise ParameterError(f"cluster {row['name']} is not in that zone and pod", parameter="clusterid")
        return row
    if not name or pod_id is None:
        raise ParameterError("give clusterid, or clustername and podid", parameter="clusterid")
    if pods.by_id(tx, pod_id)["zone_id"] != zone_id:
        raise ParameterError("the pod is not in the zone given by zoneid", parameter="podid")
    found = clusters.named(tx, pod_id, checked_name(name, "clustername"))
    if found is not None:
        return found
    made = clusters.add(
        tx, zone_id=zone_id, pod_id=pod_id, name=name, hypervisor=str(kind), cluster_type="CloudManaged"
    )
    added(tx, caller, made, name)
    return clusters.by_id(tx, made)


def _host_name(url: str) -> str:
    where = place_of(url if "//" in url else f"http://{url}", "url")
    if where.scheme not in ("http", "https") or not where.host:
        raise ParameterError("url must name the host, such as http://host1", parameter="url")
    return where.host


def _url(url: str, kind: Hypervisor) -> str:
    """What is kept of the URL: for a simulated host also how it is to behave, which stands in the query."""
    whole = url if "//" in url else f"http://{url}"
    shown = place_of(whole, "url").shown
    query = urlsplit(whole.strip()).query
    if kind is not Hypervisor.SIMULATOR or not query:
        return shown
    try:
        settings = parse_qsl(query, keep_blank_values=True, strict_parsing=True, max_num_fields=32)
        behaviour(dict(settings))
    except ValueError as error:
        raise ParameterError(f"url: the query says how a simulated host behaves: {error}", parameter="url") from error
    kept = f"{shown}?{urlencode(settings, safe=':.')}"
    if len(kept) > LONGEST_URL:
        raise ParameterError(f"url has at most {LONGEST_URL} characters", parameter="url")
    return kept


def _tags(given: list[str]) -> list[str]:
    tags = [tag.strip() for tag in given if tag.strip()]
    if any(len(tag) > LONGEST_TAG for tag in tags):
        raise ParameterError(f"a tag in hosttags has at most {LONGEST_TAG} characters", parameter="hosttags")
    return tags


def _simulate(tx: Tx, host_id: int, password: str) -> None:
    """Whoever comes first holds it: a fleet, or an agent of its own with the password, if that can be a secret."""
    digest = hashlib.sha256(password.encode()).hexdigest()
    if len(password) >= SHORTEST_TOKEN and not hosts.token_taken(tx, digest):
        hosts.add_token(tx, host_id, digest, expires_at=tx.now + TOKEN_LIFE_MS)
    fleets.want(tx, host_id)


def expect_agent(tx: Tx, host_id: int, token: str, parameter: str, *, given: str | None = None) -> None:
    """The host's agent may enrol with this secret, once, within a day. 431 when it is too short or was used before.

    When the secret was derived, what was `given` by the caller has to be long enough.
    """
    if len(token if given is None else given) < SHORTEST_TOKEN:
        raise ParameterError(
            f"{parameter} is the one-time secret with which the host's agent enrols: it must have at least "
            f"{SHORTEST_TOKEN} characters (pileus token makes one)",
            parameter=parameter,
        )
    digest = hashlib.sha256(token.encode()).hexdigest()
    if hosts.token_taken(tx, digest):
        raise ParameterError(f"{parameter} was used for another host: make a new one", parameter=parameter)
    hosts.add_token(tx, host_id, digest, expires_at=tx.now + TOKEN_LIFE_MS)


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "0%"


def _views(tx: Tx, rows: list[RowMapping]) -> list[dict[str, Any]]:
    ids = [row["id"] for row in rows]
    zones = related(tx, zone, (row["zone_id"] for row in rows))
    places = related(tx, pod, (row["pod_id"] for row in rows))
    groups = related(tx, cluster, (row["cluster_id"] for row in rows))
    categories = related(tx, os_category, (row["os_category_id"] for row in rows))
    capacity = related(tx, host_capacity, ids, key=host_capacity.c.host_id)
    load = related(tx, host_stats, ids, key=host_stats.c.host_id)
    tags = grouped(tx, host_tag, ids, host_tag.c.host_id)
    factor = float(value(tx, keys.cpu_overprovisioning_factor))
    found = []
    for row in rows:
        room, busy = capacity[row["id"]], load[row["id"]]
        place, group = places.get(row["pod_id"]), groups.get(row["cluster_id"])
        category = categories.get(row["os_category_id"])
        mhz = row["cpus"] * row["cpu_mhz"]
        routing = row["kind"] == HostKind.ROUTING
        found.append(
            {
                "id": row["uuid"],
                "name": row["name"],
                "state": row["state"],
                "type": row["kind"],
                "disconnected": row["disconnected_at"],
                "os_category_id": category["uuid"] if category else None,
                "os_category_name": category["name"] if category else None,
                "ip_address": row["address"] or None,
                "zone_id": zones[row["zone_id"]]["uuid"],
                "zone_name": zones[row["zone_id"]]["name"],
                "pod_id": place["uuid"] if place else None,
                "pod_name": place["name"] if place else None,
                "cluster_id": group["uuid"] if group else None,
                "cluster_name": group["name"] if group else None,
                "cluster_type": group["cluster_type"] if group else None,
                "version": row["version"] or None,
                "hypervisor": row["hypervisor"],
                "cpu_number": row["cpus"] if routing else None,
                "cpu_speed": row["cpu_mhz"] if routing else None,
                "cpu_with_overprovisioning": f"{mhz * factor:.1f}" if routing else None,
                "cpu_allocated": _percent(room["cpu_used_mhz"], room["cpu_total_mhz"]) if routing else None,
                "cpu_used": f"{100 * busy['cpu_used']:.2f}%" if routing else None,
                "average_load": round(busy["load_average"]),
                "network_kbs_read": busy["received_bytes"] // 1024,
                "network_kbs_write": busy["sent_bytes"] // 1024,
                "memory_total": row["memory_bytes"] if routing else None,
                "memory_allocated": room["ram_used_mib"] * _MIB if routing else None,
                "memory_used": busy["memory_used_bytes"] if routing else None,
                "capabilities": row["capabilities"] or None,
                "last_pinged": row["heard_at"],
                "management_server_id": row["server"],
                "is_local_storage_active": False,
                "created": row["created_at"],
                "host_tags": ",".join(sorted(t["tag"] for t in tags[row["id"]])) or None,
                "has_enough_capacity": room["cpu_used_mhz"] < room["cpu_total_mhz"] if routing else None,
                "allocation_state": row["allocation_state"],
                "resource_state": row["allocation_state"],
            }
        )
    return found


def _record(tx: Tx, caller: Caller, event: str, text: str, host_id: int) -> None:
    record_by(tx, caller, event, text, kind="Host", id=host_id)
