"""Execution on simulated hosts: epochs, refusals that leave nothing, deaths at every point, journaled answers."""

import pytest

from pileus.agent.backends.simulator import AnswerLost, Fault, HostSilent, NotTrue, SimulatedHosts, When
from pileus.wire.messages import VmChange
from pileus.wire.operations import (
    AnyOperation,
    ConfigureRouter,
    CreateVolume,
    DeleteImage,
    DeleteVolume,
    Done,
    DownloadTemplate,
    FetchTemplate,
    ImageFacts,
    ImageFormat,
    Reason,
    RebootVm,
    RouterFacts,
    RouterSpec,
    StartRouter,
    StartVm,
    StopRouter,
    StopVm,
    VmFacts,
    VmSpec,
)
from pileus.wire.places import DiskSpec, Isolation, NetworkRef, NicSpec, PoolKind, PoolRef, Traffic
from pileus.wire.router import RouterConfig

POOL = PoolRef("p1", PoolKind.SHARED_MOUNT_POINT, "/pool")
NET = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 7)
HOST = "h1"
CALLS_OF_A_START = ("attach_pool", "plug_network", "start_domain", "finish")
CALLS_OF_A_STOP = ("shut_down", "remove_domain", "unplug_network", "finish")


def vm(epoch: int = 1, *, number: int = 3, ram_mib: int = 128, network: NetworkRef = NET) -> VmSpec:
    nic = NicSpec(f"02:00:00:00:00:{number:02x}", "10.1.1.2", 24, network, 0)
    disk = DiskSpec(POOL, f"root-{number}", 0)
    return VmSpec(f"i-2-{number}-VM", f"u{number}", epoch, 1, 500, ram_mib, (disk,), (nic,), "secret")


def stop(spec: VmSpec, *, forced: bool = False) -> StopVm:
    return StopVm(spec.name, spec.uuid, spec.epoch, forced=forced)


class Fleet(SimulatedHosts):
    """Simulated hosts with operation ids made up as they go."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, str, str, int, VmChange]] = []
        super().__init__(changed=lambda *what: self.changes.append(what))
        self.count = 0

    def do(self, operation: AnyOperation, *, host: str = HOST) -> object:
        """The result of the operation, or the reason of its refusal."""
        self.count += 1
        answer = self.deliver(host, f"op-{self.count}", "queue", operation)
        self.world.assert_sound()
        return answer.refusal.reason if answer.refusal is not None else answer.result

    def insist(self, operation: AnyOperation, *, host: str = HOST) -> object:
        """Deliver until there is an answer, as the server does."""
        self.count += 1
        operation_id = f"op-{self.count}"
        while True:
            try:
                answer = self.deliver(host, operation_id, "queue", operation)
            except AnswerLost:
                continue
            return answer.refusal.reason if answer.refusal is not None else answer.result


@pytest.fixture
def fleet() -> Fleet:
    fleet = Fleet()
    fleet.add(HOST, memory_bytes=1 << 30)
    fleet.add("h2", memory_bytes=1 << 30)
    fleet.do(FetchTemplate(POOL, "t", "https://storage/t", "00"))
    for number in (3, 4):
        fleet.do(CreateVolume(POOL, f"root-{number}", 1 << 20, "t"))
    return fleet


def test_a_guest_starts_and_stops_and_leaves_no_bridge(fleet: Fleet) -> None:
    assert isinstance(fleet.do(StartVm(vm())), VmFacts)
    assert fleet.world.running("i-2-3-VM") == [(HOST, 1)]
    assert fleet.world.bridges() == {(HOST, NET)}
    assert fleet.do(stop(vm())) == Done()
    for number in (3, 4):
        assert fleet.do(DeleteVolume(POOL, f"root-{number}")) == Done()
    fleet.world.assert_nothing_left()


def test_a_bridge_stays_while_another_guest_uses_it(fleet: Fleet) -> None:
    fleet.do(StartVm(vm(number=3)))
    fleet.do(StartVm(vm(number=4)))
    fleet.do(stop(vm(number=3)))
    assert fleet.world.bridges() == {(HOST, NET)}
    fleet.do(stop(vm(number=4)))
    assert fleet.world.bridges() == set()


def test_a_bridge_that_would_not_go_is_no_reason_to_take_the_guest_for_gone(fleet: Fleet) -> None:
    fleet.do(StartVm(vm()))
    fleet.faults.arm(Fault("unplug_network", reason=Reason.MISSING))
    assert fleet.do(stop(vm())) is Reason.FAILED
    assert fleet.world.bridges() == {(HOST, NET)}
    assert fleet.do(stop(vm())) == Done()
    assert fleet.world.bridges() == set()


def test_a_second_delivery_returns_the_first_answer_and_does_nothing(fleet: Fleet) -> None:
    first = fleet.deliver(HOST, "start", "q", StartVm(vm()))
    assert fleet.deliver(HOST, "start", "q", StartVm(vm())) == first
    done = fleet.deliver(HOST, "stop", "q", stop(vm()))
    fleet.do(StartVm(vm(epoch=2)))
    assert fleet.deliver(HOST, "stop", "q", stop(vm())) == done
    assert len(fleet.world.running("i-2-3-VM")) == 1


def test_nobody_is_told_again_that_something_has_started_once_it_has_ended(fleet: Fleet) -> None:
    fleet.deliver(HOST, "start", "q", StartVm(vm()))
    fleet.do(stop(vm()))
    late = next(each for each in fleet.late_answers(HOST) if each.operation_id == "start")
    for again in (late, fleet.deliver(HOST, "start", "q", StartVm(vm()))):
        assert again.refusal is not None
        assert again.refusal.reason is Reason.FAILED
    assert fleet.world.running("i-2-3-VM") == []


def test_a_refused_start_leaves_nothing(fleet: Fleet) -> None:
    assert fleet.do(StartVm(vm(ram_mib=2048))) is Reason.NO_ROOM
    assert list(fleet.world.guests()) == []
    assert fleet.world.bridges() == set()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("call", ["attach_pool", "plug_network", "start_domain"])
@pytest.mark.parametrize("reason", [Reason.NO_ROOM, None])
def test_a_start_that_fails_at_any_call_leaves_nothing(
    fleet: Fleet, call: str, when: When, reason: Reason | None
) -> None:
    fleet.faults.arm(Fault(call, when=when, reason=reason))
    assert fleet.do(StartVm(vm())) is (reason or Reason.FAILED)
    assert list(fleet.world.guests()) == []
    assert fleet.world.bridges() == set()
    assert isinstance(fleet.do(StartVm(vm())), VmFacts)


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("call", CALLS_OF_A_START)
def test_an_agent_that_dies_anywhere_in_a_start_ends_with_one_copy(fleet: Fleet, call: str, when: When) -> None:
    fleet.faults.arm(Fault(call, when=when, dies=True))
    assert isinstance(fleet.insist(StartVm(vm())), VmFacts)
    assert fleet.world.running("i-2-3-VM") == [(HOST, 1)]
    fleet.world.assert_sound()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("call", CALLS_OF_A_START)
def test_a_start_given_up_after_a_death_is_taken_away_whole_by_its_stop(fleet: Fleet, call: str, when: When) -> None:
    fleet.faults.arm(Fault(call, when=when, dies=True))
    with pytest.raises(AnswerLost):
        fleet.deliver(HOST, "given-up", "q", StartVm(vm()))
    assert fleet.insist(stop(vm())) == Done()
    assert list(fleet.world.guests()) == []
    assert fleet.world.bridges() == set()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER])
@pytest.mark.parametrize("call", CALLS_OF_A_STOP)
def test_an_agent_that_dies_anywhere_in_a_stop_leaves_nothing(fleet: Fleet, call: str, when: When) -> None:
    fleet.do(StartVm(vm()))
    fleet.faults.arm(Fault(call, when=when, dies=True))
    assert fleet.insist(stop(vm())) == Done()
    assert list(fleet.world.guests()) == []
    assert fleet.world.bridges() == set()


def test_a_start_of_an_ended_life_is_refused_however_late_it_comes(fleet: Fleet) -> None:
    assert fleet.do(stop(vm(epoch=2))) == Done()
    assert fleet.do(StartVm(vm(epoch=2))) is Reason.STALE_EPOCH
    assert fleet.do(StartVm(vm(epoch=1))) is Reason.STALE_EPOCH
    assert isinstance(fleet.do(StartVm(vm(epoch=3))), VmFacts)


def test_a_stop_leaves_a_newer_life_alone(fleet: Fleet) -> None:
    fleet.do(StartVm(vm(epoch=5)))
    assert fleet.do(stop(vm(epoch=4))) == Done()
    assert fleet.world.running("i-2-3-VM") == [(HOST, 5)]
    assert fleet.world.bridges() == {(HOST, NET)}


def test_a_stale_start_leaves_the_newer_life_alone(fleet: Fleet) -> None:
    fleet.do(StartVm(vm(epoch=5)))
    assert fleet.do(StartVm(vm(epoch=4))) is Reason.STALE_EPOCH
    assert fleet.world.running("i-2-3-VM") == [(HOST, 5)]


def test_a_newer_life_takes_the_place_of_an_older_one_and_its_bridges(fleet: Fleet) -> None:
    other = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 8)
    fleet.do(StartVm(vm(epoch=1)))
    assert isinstance(fleet.do(StartVm(vm(epoch=2, network=other))), VmFacts)
    assert fleet.world.running("i-2-3-VM") == [(HOST, 2)]
    assert fleet.world.bridges() == {(HOST, other)}


def test_a_name_of_another_guest_is_never_touched(fleet: Fleet) -> None:
    fleet.do(StartVm(vm(epoch=1)))
    stranger = VmSpec("i-2-3-VM", "another", 9, 1, 500, 128, vm().disks, vm().nics, "secret")
    assert fleet.do(StartVm(stranger)) is Reason.FAILED
    assert fleet.do(stop(stranger, forced=True)) == Done()
    assert fleet.world.running("i-2-3-VM") == [(HOST, 1)]


def test_a_guest_that_ignores_the_request_is_stopped_after_its_grace(fleet: Fleet) -> None:
    fleet.backend(HOST).stubborn.add("i-2-3-VM")
    fleet.do(StartVm(vm()))
    before = fleet.clock.now()
    assert fleet.do(StopVm("i-2-3-VM", "u3", 1, grace_seconds=45)) == Done()
    assert fleet.clock.now() - before == 45
    assert fleet.world.running("i-2-3-VM") == []


def test_a_reboot_keeps_the_life_and_says_so_when_it_could_not(fleet: Fleet) -> None:
    fleet.do(StartVm(vm()))
    assert isinstance(fleet.do(RebootVm(vm())), VmFacts)
    assert fleet.changes == []
    fleet.faults.arm(Fault("attach_pool", reason=Reason.UNREACHABLE))
    assert fleet.do(RebootVm(vm())) is Reason.UNREACHABLE
    assert fleet.world.running("i-2-3-VM") == [(HOST, 1)]
    fleet.faults.arm(Fault("start_domain", reason=Reason.FAILED))
    assert fleet.do(RebootVm(vm())) is Reason.FAILED
    assert list(fleet.world.guests()) == []
    assert fleet.world.bridges() == set()
    assert fleet.changes == [(HOST, "i-2-3-VM", "u3", 1, VmChange.STOPPED)]


def test_a_router_takes_newer_configs_only_and_only_in_its_epoch(fleet: Fleet) -> None:
    router = RouterSpec("r-9-VM", "u9", 2, (NicSpec("02:00:00:00:00:99", "10.1.1.1", 24, NET, 0),))

    def config(generation: int) -> RouterConfig:
        return RouterConfig("n1", generation, "10.1.1.1", 24, "cloud.internal")

    assert fleet.do(ConfigureRouter("r-9-VM", 2, config(1))) is Reason.MISSING
    started = fleet.do(StartRouter(router, config(1)))
    assert isinstance(started, RouterFacts)
    assert started.generation == 1
    configured = fleet.do(ConfigureRouter("r-9-VM", 2, config(3)))
    assert configured == RouterFacts(3, started.fingerprint)
    assert fleet.do(ConfigureRouter("r-9-VM", 2, config(2))) is Reason.STALE_EPOCH
    assert fleet.do(ConfigureRouter("r-9-VM", 1, config(4))) is Reason.STALE_EPOCH
    assert fleet.do(ConfigureRouter("r-9-VM", 3, config(4))) is Reason.MISSING
    applied = fleet.world.config_of("r-9-VM")
    assert applied is not None
    assert applied.generation == 3
    assert fleet.do(StopRouter("r-9-VM", "u9", 2)) == Done()
    assert fleet.do(StartRouter(router, config(5))) is Reason.STALE_EPOCH
    assert list(fleet.world.guests()) == []
    assert fleet.world.bridges() == set()


def test_a_guest_that_changes_by_itself_is_noticed(fleet: Fleet) -> None:
    fleet.do(StartVm(vm()))
    fleet.backend(HOST).shut_down_inside("i-2-3-VM")
    assert fleet.changes == [(HOST, "i-2-3-VM", "u3", 1, VmChange.STOPPED)]
    assert [seen.running for seen in fleet.intro(HOST).holds] == [False]
    assert isinstance(fleet.do(StartVm(vm(epoch=2))), VmFacts)
    fleet.backend(HOST).crash_guest("i-2-3-VM")
    assert fleet.changes[-1] == (HOST, "i-2-3-VM", "u3", 2, VmChange.CRASHED)


def test_a_lost_answer_comes_late_until_it_is_forgotten(fleet: Fleet) -> None:
    earlier = tuple(answer.operation_id for answer in fleet.late_answers(HOST))
    fleet.forget(*earlier)
    fleet.lost_answers = 1
    with pytest.raises(AnswerLost):
        fleet.deliver(HOST, "lost", "q", StartVm(vm()))
    assert fleet.world.running("i-2-3-VM") == [(HOST, 1)]
    late = fleet.late_answers(HOST)
    assert [answer.operation_id for answer in late] == ["lost"]
    assert fleet.deliver(HOST, "lost", "q", StartVm(vm())) == late[0]
    fleet.forget("lost")
    assert fleet.late_answers(HOST) == []


def test_nothing_reaches_a_silent_host(fleet: Fleet) -> None:
    fleet.silent.add(HOST)
    with pytest.raises(HostSilent):
        fleet.deliver(HOST, "x", "q", StartVm(vm()))
    assert fleet.world.running("i-2-3-VM") == []


def test_a_world_with_two_copies_of_a_guest_is_not_sound(fleet: Fleet) -> None:
    fleet.do(StartVm(vm()))
    fleet.deliver("h2", "twin", "q", StartVm(vm(epoch=2)))
    with pytest.raises(NotTrue):
        fleet.world.assert_sound()


def test_a_world_that_still_holds_something_is_not_empty(fleet: Fleet) -> None:
    with pytest.raises(NotTrue):
        fleet.world.assert_nothing_left()


def test_storage_hosts_download_once_and_refuse_guests(fleet: Fleet) -> None:
    fleet.add_storage("s1", capacity_bytes=1 << 30)
    order = DownloadTemplate("t1", "http://images/t1", ImageFormat.QCOW2, "", 1 << 29)
    facts = fleet.do(order, host="s1")
    assert isinstance(facts, ImageFacts)
    assert fleet.do(order, host="s1") == facts
    small = DownloadTemplate("t2", "http://images/t2", ImageFormat.QCOW2, "", 1)
    assert fleet.do(small, host="s1") is Reason.REJECTED
    assert fleet.do(DeleteImage("t1"), host="s1") == Done()
    assert fleet.do(StartVm(vm()), host="s1") is Reason.REJECTED
    assert fleet.do(DeleteImage("t1")) is Reason.REJECTED
