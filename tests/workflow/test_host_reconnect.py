"""A host's connection is made anew, whatever goes wrong; and `reconnectHost` with its errors."""

from dataclasses import dataclass

import pytest
from sqlalchemy import select, update

from pileus.server.db.tables.event import event
from pileus.server.db.tables.host import host
from pileus.server.domain.caller import root_caller
from pileus.server.domain.errors import ParameterError, ResourceUnavailable
from pileus.server.domain.host import HostState
from pileus.server.domain.ids import Host, Id
from pileus.server.hosts import liveness, signal
from pileus.server.jobs.submit import JobRef, wake
from pileus.server.services import host as hosts
from pileus.server.services import host_line
from pileus.testing import World
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness
from pileus.testing.world import SERVER
from pileus.wire.messages import HostFacts

FACTS = HostFacts("Simulator", "1", "127.0.0.1", cpus=8, cpu_mhz=2000, memory_bytes=16 << 30)


@dataclass
class Case:
    """A host with a line."""

    host: Id[Host]


def connected(world: World) -> Case:
    made = world.host(world.cluster(world.pod(world.zone())))
    with world.db.write() as tx:
        liveness.connected(tx, {made: FACTS}, SERVER)
    return Case(made)


def reconnect(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        uuid = host_line.reconnect(tx, root_caller(), case.host)
    return JobRef(world.job(uuid)["id"], uuid)


def is_connected(world: World, case: Case) -> None:
    with world.db.read() as tx:
        row = tx.one(select(host).where(host.c.id == case.host))
    assert row is not None
    assert (row["state"], row["server"], row["reconnect_asked_at"]) == ("Up", SERVER, None)


RECONNECT = Soundness[Case]("host.reconnect", prepare=connected, submit=reconnect, holds=is_connected)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_reconnect_is_sound(scenario: Scenario) -> None:
    RECONNECT.check(scenario)


def test_the_line_ends_and_the_job_waits_for_the_next(world: World) -> None:
    case = connected(world)
    world.hosts.silent.add(world.uuid(host, case.host))
    told: list[int] = []
    ignore = signal.listen({signal.About.RECONNECT: told.append})
    ref = reconnect(world, case)
    while world.turn():
        continue
    ignore()
    assert told == [case.host]
    assert world.job(ref)["phase"] == "forward"
    with world.db.read() as tx:
        # What a server finds that did not hear of it: another one of the farm.
        assert liveness.reconnecting(tx, SERVER) == [case.host]
        assert liveness.reconnecting(tx, "another") == []
    world.hosts.silent.clear()
    world.result(ref)
    is_connected(world, case)
    with world.db.read() as tx:
        written = [(row["type"], row["state"]) for row in tx.all(select(event).order_by(event.c.id))]
    assert [state for type_, state in written if type_ == "HOST.RECONNECT"] == ["Scheduled", "Completed"]


def test_a_host_that_does_not_come_back_fails_the_job_and_is_asked_no_more(world: World) -> None:
    case = connected(world)
    world.hosts.silent.add(world.uuid(host, case.host))
    ref = reconnect(world, case)
    while world.turn():
        continue
    with world.db.write() as tx:
        liveness.disconnected(tx, [case.host], SERVER)
        liveness.down(tx, [case.host])
        wake(tx, f"host:{case.host}")
    code, text = world.failure(ref)
    assert code == ResourceUnavailable.code
    assert "did not connect again" in text
    with world.db.read() as tx:
        assert tx.scalar(select(host.c.reconnect_asked_at)) is None


def test_a_host_that_is_removed_meanwhile_fails_the_job(world: World) -> None:
    case = connected(world)
    world.hosts.silent.add(world.uuid(host, case.host))
    ref = reconnect(world, case)
    while world.turn():
        continue
    with world.db.write() as tx:
        hosts.delete(tx, root_caller(), case.host)
    code, text = world.failure(ref)
    assert (code, "Removed" in text) == (ResourceUnavailable.code, True)


def test_a_line_that_does_not_come_in_time_fails_the_job(world: World) -> None:
    case = connected(world)
    world.hosts.silent.add(world.uuid(host, case.host))
    ref = reconnect(world, case)
    assert world.failure(ref)[0] == ResourceUnavailable.code
    with world.db.read() as tx:
        assert tx.scalar(select(host.c.reconnect_asked_at)) is None


def test_a_host_whose_server_went_is_only_waited_for(world: World) -> None:
    case = connected(world)
    with world.db.write() as tx:
        liveness.released(tx, SERVER)
    ref = reconnect(world, case)
    while world.turn():
        continue
    with world.db.write() as tx:
        assert tx.scalar(select(host.c.reconnect_asked_at)) is None
        liveness.connected(tx, {case.host: FACTS}, "another")
        hosts.introduced(tx, case.host, FACTS)
    world.result(ref)


@pytest.mark.parametrize("state", [HostState.CONNECTING, HostState.DISCONNECTED, HostState.DOWN])
def test_a_host_without_a_line_cannot_be_reconnected(world: World, state: HostState) -> None:
    case = connected(world)
    with world.db.write() as tx:
        tx.execute(update(host).values(state=str(state)))
    with world.db.write() as tx, pytest.raises(ParameterError, match=f"is {state}") as told:
        host_line.reconnect(tx, root_caller(), case.host)
    assert told.value.parameter == "id"


def test_two_reconnects_of_one_host_come_one_after_the_other(world: World) -> None:
    case = connected(world)
    first, second = reconnect(world, case), reconnect(world, case)
    world.result(first)
    world.result(second)
    is_connected(world, case)
