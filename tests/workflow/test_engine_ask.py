"""Asking hosts from steps: once, judged by reason, given up in time, undone even if the answer never comes."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import select, update
from toy import send

from pileus.agent.backends.simulator import Fault
from pileus.server.db.tables.host import host, host_operation
from pileus.server.domain.host import HostState
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Plan, StepCall, step, workflow
from pileus.server.workflows.ask import ask, make_sure
from pileus.testing import World
from pileus.testing.world import NeverQuiet
from pileus.wire.operations import CreateVolume, DeleteVolume, Reason
from pileus.wire.places import PoolKind, PoolRef

QUEUE = "pool:p:v"
POOL = PoolRef("p", PoolKind.SHARED_MOUNT_POINT, "/p")


@step("asktoy.create")
def create(ctx: StepContext, host_id: int) -> None:
    facts = ask(ctx, host_id, CreateVolume(POOL, "v", 1 << 20), queue=QUEUE, deadline_seconds=60)
    ctx.set_result(facts=type(facts).__name__)


@create.undo
def delete(ctx: StepContext, host_id: int) -> None:
    make_sure(ctx, host_id, DeleteVolume(POOL, "v"), queue=QUEUE)


@step("asktoy.fail")
def fail(ctx: StepContext, host_id: int) -> None:
    ask(ctx, host_id, CreateVolume(POOL, "w", 1 << 20, template="no such template"), queue="pool:p:w")


@workflow("asktoy.create")
def creates(host_id: int) -> Iterator[StepCall]:
    yield create(host_id=host_id)


@workflow("asktoy.unwind")
def unwinds(host_id: int) -> Iterator[StepCall]:
    yield create(host_id=host_id)
    yield fail(host_id=host_id)


@dataclass
class Place:
    """A host to ask."""

    world: World
    host_id: int

    @property
    def uuid(self) -> str:
        return self.world.uuid(host, self.host_id)

    def send(self, plan: Plan) -> int:
        return send(self.world, plan).id

    def state(self, state: HostState) -> None:
        with self.world.db.write() as tx:
            tx.execute(update(host).where(host.c.id == self.host_id).values(state=str(state)))

    def kinds(self) -> list[tuple[str, int | None]]:
        """Every operation and whether it is pending, oldest first."""
        with self.world.reading() as tx:
            rows = tx.all(select(host_operation).order_by(host_operation.c.id))
        return [(row["kind"], row["pending"]) for row in rows]

    def volumes(self) -> set[str]:
        return self.world.hosts.world.volumes()


@pytest.fixture
def place(world: World) -> Place:
    return Place(world, world.cloud(hosts=1).hosts[0])


def test_an_answer_ends_the_nap_and_is_asked_for_once(place: Place) -> None:
    ref = place.send(creates(place.host_id))
    assert place.world.result(ref) == {"facts": "ImageFacts"}
    assert place.kinds() == [("CreateVolume", None)]
    assert place.volumes() == {"v"}


def test_a_refusal_fails_the_job_with_the_code_of_its_reason(place: Place) -> None:
    code, text = place.world.failure(place.send(unwinds(place.host_id)))
    assert (code, "no such template" in text) == (534, True)
    assert place.volumes() == set()


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.NO_ROOM, 533),
        (Reason.UNREACHABLE, 534),
        (Reason.MISSING, 534),
        (Reason.REJECTED, 431),
        (Reason.STALE_EPOCH, 530),
        (Reason.FAILED, 530),
    ],
)
def test_each_reason_has_its_code(place: Place, reason: Reason, code: int) -> None:
    place.world.hosts.faults.arm(Fault("create_volume", reason=reason))
    assert place.world.failure(place.send(creates(place.host_id)))[0] == code


def test_silence_is_given_up_in_time_and_the_lost_order_is_never_delivered(place: Place) -> None:
    began_at = place.world.clock.now()
    place.world.hosts.silent.add(place.uuid)
    ref = place.send(creates(place.host_id))
    with pytest.raises(NeverQuiet):
        place.world.settle(seconds=300)
    row = place.world.job(ref)
    assert (row["phase"], row["error_code"]) == ("unwind", 534), "it insists on the deletion while the host may answer"
    assert began_at + 60_000 <= place.world.clock.now()
    assert place.kinds() == [("CreateVolume", None), ("DeleteVolume", 1)]
    place.world.hosts.silent.clear()
    place.world.failure(ref)
    assert [type(order.operation).__name__ for order in place.world.hosts.delivered] == ["DeleteVolume"]


@pytest.mark.parametrize("state", [HostState.DOWN, HostState.REMOVED])
def test_an_undo_does_not_wait_for_a_host_that_is_gone(place: Place, state: HostState) -> None:
    place.world.hosts.silent.add(place.uuid)
    ref = place.send(creates(place.host_id))
    assert place.world.turn()
    place.state(state)
    place.world.failure(ref)
    pending = [kind for kind, pending in place.kinds() if pending]
    assert pending == (["DeleteVolume"] if state is HostState.DOWN else [])


def test_what_a_down_host_was_told_to_undo_is_done_when_it_is_back(place: Place) -> None:
    place.world.hosts.lost_answers = 1
    ref = place.send(creates(place.host_id))
    assert place.world.turn()
    assert place.world.turn()
    assert place.volumes() == {"v"}, "the host acted, its answer was lost"
    place.world.hosts.silent.add(place.uuid)
    place.state(HostState.DOWN)
    place.world.failure(ref)
    assert place.volumes() == {"v"}
    place.state(HostState.UP)
    place.world.hosts.silent.clear()
    place.world.settle()
    assert place.volumes() == set()


def test_a_refused_undo_is_asked_again_as_a_new_operation(place: Place) -> None:
    place.world.hosts.faults.arm(Fault("delete_volume", reason=Reason.FAILED, times=2))
    place.world.failure(place.send(unwinds(place.host_id)))
    assert place.volumes() == set()
    assert [kind for kind, _ in place.kinds()].count("DeleteVolume") == 3


def test_an_undo_that_is_always_refused_leaves_the_job_stuck(place: Place) -> None:
    place.world.hosts.faults.arm(Fault("delete_volume", reason=Reason.FAILED, times=1000))
    ref = place.send(unwinds(place.host_id))
    place.world.settle()
    assert place.world.job(ref)["phase"] == "stuck"
