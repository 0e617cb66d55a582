"""A zone with what stands in it, made through commands, and what tests say about refusals and events."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import select

from pileus.server.db.tables.event import event
from pileus.server.db.transaction import Database
from pileus.testing.client import Client, Refused

TOKEN = "canary-one-time-secret-0001"


@contextmanager
def refused(code: int, *words: str) -> Iterator[None]:
    """The block must be refused with this code, and each of the words must stand in the text."""
    with pytest.raises(Refused) as caught:
        yield
    assert caught.value.code == code, caught.value
    for word in words:
        assert word.lower() in caught.value.text.lower(), caught.value.text


def zone(client: Client, name: str = "z1", **values: Any) -> dict[str, Any]:
    """An Advanced zone."""
    given = {
        "name": name,
        "networktype": "Advanced",
        "dns1": "192.0.2.1",
        "internaldns1": "192.0.2.2",
        "vlan": "100-119",
        **values,
    }
    return client.one("createZone", **given)


def pod(client: Client, zone_id: str, name: str = "p1", **values: Any) -> dict[str, Any]:
    """A pod with ten private addresses."""
    given = {
        "zoneid": zone_id,
        "name": name,
        "gateway": "192.168.10.1",
        "netmask": "255.255.255.0",
        "startip": "192.168.10.10",
        "endip": "192.168.10.19",
        **values,
    }
    return client.one("createPod", **given)


def cluster(client: Client, zone_id: str, pod_id: str, name: str = "c1", **values: Any) -> dict[str, Any]:
    """A cluster of simulated hosts."""
    given = {
        "zoneid": zone_id,
        "podid": pod_id,
        "clustername": name,
        "hypervisor": "Simulator",
        "clustertype": "CloudManaged",
        **values,
    }
    return client.one("addCluster", **given)


def group(client: Client, **values: Any) -> tuple[str, str, str]:
    """Ids of a zone, its pod, its cluster (made with `values`)."""
    here = zone(client)["id"]
    place = pod(client, here)["id"]
    return here, place, cluster(client, here, place, **values)["id"]


def host(client: Client, zone_id: str, cluster_id: str, name: str = "h1", **values: Any) -> dict[str, Any]:
    """A host that is expected to connect."""
    given = {
        "zoneid": zone_id,
        "clusterid": cluster_id,
        "hypervisor": "Simulator",
        "url": f"http://{name}",
        "username": "root",
        "password": f"{TOKEN}-{name}",
        **values,
    }
    return client.one("addHost", **given)


def events(database: Database) -> list[tuple[str, str]]:
    """Type and description of all events, oldest first."""
    with database.read() as tx:
        return [(row["type"], row["description"]) for row in tx.all(select(event).order_by(event.c.id))]
