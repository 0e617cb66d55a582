"""A guest as a host is told of it."""

from sqlalchemy import RowMapping

from pileus.server.config import keys, value
from pileus.server.db import rows
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import vm as vms
from pileus.server.db.queries import volume as volumes
from pileus.server.db.queries.incarnation import Life
from pileus.server.db.tables.template import os_type
from pileus.server.db.transaction import Tx
from pileus.wire.operations import StopVm, VmSpec

GRACE_SECONDS = 60
"""How long a guest's operating system may take to shut down before the power is pulled."""


def queue_of(row: RowMapping) -> str:
    """The queue of everything asked about this guest on one host."""
    return f"vm:{row['instance_name']}"


def spec(tx: Tx, row: RowMapping, life: Life) -> VmSpec:
    """The guest in this life, with its disks and NICs as they stand now."""
    offering = vms.offering_of(tx, row)
    os = rows.kept(tx, os_type, row["os_type_id"])
    return VmSpec(
        name=row["instance_name"],
        uuid=row["uuid"],
        epoch=life.epoch,
        cpus=offering["cpus"],
        cpu_mhz=offering["cpu_mhz"],
        ram_mib=offering["ram_mib"],
        disks=volumes.disk_specs(tx, row["id"]),
        nics=nics.specs(
            tx,
            row["id"],
            rate_mbps=value(tx, keys.vm_network_throttling_rate),
            other_rate_mbps=value(tx, keys.network_throttling_rate),
        ),
        vnc_password=row["vnc_password"],
        limit_cpu=bool(offering["limit_cpu"]),
        os_type="" if os is None else os["name"],
    )


def stop(row: RowMapping, epoch: int, *, forced: bool) -> StopVm:
    """What ends this life and every older one."""
    return StopVm(row["instance_name"], row["uuid"], epoch, forced=forced, grace_seconds=GRACE_SECONDS)
