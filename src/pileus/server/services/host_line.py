"""What administrators do about a host's connection: have it made anew, let its agent enrol again.

Guide: "Working with Hosts"; decisions 3 and 14.
"""

import hashlib
import hmac

from sqlalchemy import RowMapping

from pileus.server.db.queries import cluster as clusters
from pileus.server.db.queries import host as hosts
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.host import HostState
from pileus.server.domain.ids import Cluster, Host, Id
from pileus.server.events import record, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.submit import submit
from pileus.server.services.host import expect_agent
from pileus.server.workflows.host_reconnect import KIND, host_reconnect

DEADLINE_SECONDS = 600.0
"""Longer than an agent's longest pause between two attempts, and than a server needs to take over from a dead one."""


def reconnect(tx: Tx, caller: Caller, host_id: Id[Host]) -> str:
    """End the host's connection and wait for the next; the job's UUID. 431 for a host that has none."""
    row = hosts.by_id(tx, host_id)
    if row["state"] not in (HostState.UP, HostState.ALERT):
        raise ParameterError(
            f"host {row['name']} is {row['state']}: it has no connection that could be made anew; its agent connects "
            "by itself once it runs and reaches a server",
            parameter="id",
        )
    owner = Owner(caller.account_id, caller.domain_id, caller.user_id)
    started = record(
        tx,
        type=types.HOST_RECONNECT,
        description=f"Reconnecting host {row['name']}",
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=owner.user_id,
        state=SCHEDULED,
        resource_kind=KIND,
        resource_id=host_id,
        zone_id=row["zone_id"],
    )
    return submit(
        tx,
        host_reconnect(host=host_id),
        owner,
        command="reconnectHost",
        instance_kind=KIND,
        instance_id=host_id,
        resource_key=f"host:{host_id}",
        deadline_seconds=DEADLINE_SECONDS,
        start_event_id=started,
    ).uuid


def renew_secret(
    tx: Tx, caller: Caller, *, host_id: Id[Host] | None, cluster_id: Id[Cluster] | None, password: str
) -> None:
    """Give a host, or each host of a cluster, a new one-time secret; unused older ones count no more.

    Connections stay as they are, until an agent enrols with the new secret: then older certificates of that host end.
    431 unless exactly one of host and cluster is given, and for a host that a fleet holds.
    """
    if (host_id is None) == (cluster_id is None):
        raise ParameterError("give either hostid or clusterid", parameter="hostid")
    if host_id is not None:
        row = hosts.by_id(tx, host_id)
        if row["fleet_id"] is not None:
            raise ParameterError(
                f"host {row['name']} is held by a fleet of simulated hosts, which needs no secret for it",
                parameter="hostid",
            )
        hosts.void_tokens(tx, [host_id])
        expect_agent(tx, host_id, password, "password")
        return
    assert cluster_id is not None  # noqa: S101 (one of both was given)
    rows = hosts.enrolling_in(tx, cluster_id)
    if not rows:
        name = clusters.by_id(tx, cluster_id)["name"]
        raise ParameterError(f"cluster {name} has no host whose agent enrols with a secret", parameter="clusterid")
    hosts.void_tokens(tx, [row["id"] for row in rows])
    for row in rows:
        expect_agent(tx, row["id"], secret_of(password, row), "password", given=password)


def secret_of(password: str, row: RowMapping) -> str:
    """The secret of one host of a cluster: nobody who knows it knows that of another (HMAC-SHA256 of its ID, hex)."""
    return hmac.new(password.encode(), str(row["uuid"]).encode(), hashlib.sha256).hexdigest()
