"""What soundness tests of guests share: a cloud in which one guest runs already, and a second to work on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from pileus.server.config import change, keys
from pileus.server.db.queries import vm as vms
from pileus.server.db.tables.vm import vm as vm_table
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.ids import Id, Vm
from pileus.server.domain.vm import VmState
from pileus.server.jobs.submit import JobRef
from pileus.server.services import vm as vm_service
from pileus.server.services.vm_deploy import Order, deploy
from pileus.testing import World
from pileus.testing.builders import Cloud


@dataclass
class Case:
    """A cloud, an account, and the guest that the workflow is about (0 until it is asked for)."""

    cloud: Cloud
    caller: Caller
    vm: Id[Vm]


Change = Callable[[Tx, Caller, Id[Vm]], tuple[str, str]]


def with_neighbour(world: World) -> Case:
    """A cloud where the account's network runs, because a guest of it does."""
    case = fresh(world)
    result_of(world, ordered(world, case, name="neighbour"))
    return case


def fresh(world: World) -> Case:
    """A cloud with an account that has nothing yet."""
    cloud = world.cloud(hosts=2)
    with world.db.write() as tx:
        change(tx, keys.vm_allocation_algorithm, "firstfit", user_id=1)
    return Case(cloud, world.account("alice"), Id[Vm](0))


def running(world: World) -> Case:
    """Beside the neighbour, a guest that runs."""
    case = with_neighbour(world)
    result_of(world, ordered(world, case, name="web"))
    return case


def stopped(world: World) -> Case:
    """Beside the neighbour, a guest that was stopped."""
    case = running(world)
    result_of(world, asked(world, case, lambda tx, caller, vm: vm_service.stop(tx, caller, vm, forced=True)))
    return case


def ordered(world: World, case: Case, **wishes: Any) -> JobRef:
    """Ask for a guest."""
    cloud = case.cloud
    order = Order(
        zone_id=cloud.zone, service_offering_id=cloud.offering, template_id=cloud.template, **{"name": "web", **wishes}
    )
    with world.db.write() as tx:
        job_uuid, uuid = deploy(tx, case.caller, order)
        case.vm = Id(int(tx.scalar(select(vm_table.c.id).where(vm_table.c.uuid == uuid))))
    return ref_of(world, job_uuid)


def asked(world: World, case: Case, change: Change) -> JobRef:
    """Ask for something to be done to the guest."""
    with world.db.write() as tx:
        job_uuid, _ = change(tx, case.caller, case.vm)
    return ref_of(world, job_uuid)


def ref_of(world: World, job_uuid: str) -> JobRef:
    """A job by its UUID."""
    return JobRef(world.job(job_uuid)["id"], job_uuid)


def result_of(world: World, ref: JobRef) -> dict[str, Any]:
    """The result of a job that must succeed."""
    return world.result(ref)


def holds_state(state: VmState) -> Callable[[World, Case], None]:
    """The guest is in this state, and runs exactly once if that is Running, else not at all."""

    def holds(world: World, case: Case) -> None:
        with world.db.read() as tx:
            row = vms.by_id(tx, case.vm)
        assert row["state"] == state
        assert len(world.hosts.world.running(row["instance_name"])) == int(state is VmState.RUNNING)

    return holds
