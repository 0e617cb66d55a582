"""What tests of guests share: a cloud, an account, and a deploy in one line."""

from typing import Any

from sqlalchemy import RowMapping, select

from pileus.server.config import change, keys
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.job import job
from pileus.server.db.tables.vm import vm
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Id, Vm
from pileus.server.hosts.operations import Waiting
from pileus.server.services.vm_deploy import Order, deploy
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.wire.messages import Answer
from pileus.wire.operations import Operation, Reason, Refusal


def steady_cloud(world: World) -> Cloud:
    """Two hosts, filled in order: where guests and routers run is the same every time."""
    with world.db.write() as tx:
        change(tx, keys.vm_allocation_algorithm, "firstfit", user_id=1)
    return world.cloud()


def order(cloud: Cloud, **wishes: Any) -> Order:
    """A deploy order for the cloud's offering and template."""
    return Order(
        **{
            "zone_id": cloud.zone,
            "service_offering_id": cloud.offering,
            "template_id": cloud.template,
            **wishes,
        }
    )


def submitted(world: World, caller: Caller, cloud: Cloud, **wishes: Any) -> tuple[str, Id[Vm]]:
    """Ask for a guest; the job's UUID and the guest's key. Nothing runs yet."""
    with world.db.write() as tx:
        job_uuid, uuid = deploy(tx, caller, order(cloud, **wishes))
        return job_uuid, Id(int(tx.scalar(select(vm.c.id).where(vm.c.uuid == uuid))))


def deployed(world: World, caller: Caller, cloud: Cloud, **wishes: Any) -> Id[Vm]:
    """A guest that runs."""
    job_uuid, vm_id = submitted(world, caller, cloud, **wishes)
    world.result(job_uuid)
    return vm_id


def row_of(world: World, vm_id: int) -> RowMapping:
    """The guest's row."""
    with world.db.read() as tx:
        return vms.by_id(tx, vm_id)


def refuse(world: World, kind: type[Operation], reason: Reason, text: str = "no") -> None:
    """From now on hosts refuse operations of a kind."""

    def instead(waiting: Waiting) -> Answer | None:
        if not isinstance(waiting.operation, kind):
            return None
        return Answer(waiting.operation_id, "", refusal=Refusal(reason, text))

    world.instead = instead


def open_jobs(world: World) -> int:
    """How many jobs have not ended."""
    with world.db.read() as tx:
        return len(tx.all(select(job.c.id).where(job.c.open == 1)))
