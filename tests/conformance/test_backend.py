"""What every backend must hold to, atomic by atomic, and through the agent's executor. See `Backend`."""

import msgspec
import pytest
from conformance_bench import Bench

from pileus.agent.backend import Refused
from pileus.agent.executor import Executor
from pileus.agent.journal import Journal
from pileus.wire.messages import VmChange
from pileus.wire.operations import (
    AnyOperation,
    AnyResult,
    ConfigureRouter,
    Done,
    Reason,
    RebootVm,
    RouterFacts,
    StartRouter,
    StartVm,
    StopRouter,
    StopVm,
    VmFacts,
)
from pileus.wire.places import PoolKind, PoolRef
from pileus.wire.router import fingerprint

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024


async def _reason(bench: Bench, work: object) -> Reason:
    with pytest.raises(Refused) as refusal:
        await work  # type: ignore[misc]
    return refusal.value.reason


# ---- the host


async def test_a_host_says_what_it_is(bench: Bench) -> None:
    facts = await bench.backend.facts()
    assert min(facts.cpus, facts.cpu_mhz, facts.memory_bytes) > 0
    assert facts.hypervisor
    assert facts.address
    assert await bench.backend.facts() == facts


async def test_statistics_name_the_host_and_its_running_guests(bench: Bench) -> None:
    vm = bench.guest(await bench.volume())
    await bench.backend.plug_network(vm.nics[0].network)
    await bench.backend.start_domain(vm)
    stats = await bench.backend.stats("the-host")
    assert stats.uuid == "the-host"
    assert 0.0 <= stats.cpu_used <= 1.0
    assert stats.memory_used_bytes > 0
    assert [each.name for each in stats.vms] == [vm.name]
    await bench.backend.remove_domain(vm.name)
    assert (await bench.backend.stats("the-host")).vms == ()


async def test_a_clean_host_holds_nothing(bench: Bench) -> None:
    assert await bench.backend.inventory() == []
    assert await bench.bridges() == set()


# ---- storage


async def test_a_pool_is_attached_once_however_often(bench: Bench) -> None:
    first = await bench.backend.attach_pool(bench.pool)
    assert 0 < first.available_bytes <= first.capacity_bytes
    assert (await bench.backend.attach_pool(bench.pool)).capacity_bytes == first.capacity_bytes
    await bench.backend.detach_pool(bench.pool)
    await bench.backend.detach_pool(bench.pool)


async def test_detaching_keeps_what_is_in_the_pool(bench: Bench) -> None:
    name = await bench.volume()
    made = await bench.backend.create_volume(bench.pool, name, 0, bench.template.name)
    await bench.backend.detach_pool(bench.pool)
    await bench.backend.attach_pool(bench.pool)
    again = await bench.backend.create_volume(bench.pool, name, 0, bench.template.name)
    assert again.virtual_bytes == made.virtual_bytes


async def test_a_template_is_fetched_once_and_progress_stays_within_bounds(bench: Bench) -> None:
    percents: list[int] = []
    await bench.backend.attach_pool(bench.pool)
    first = await bench.backend.fetch_template(bench.template, lambda percent, text: percents.append(percent))
    assert first.virtual_bytes >= first.physical_bytes // 2 > 0
    assert percents
    assert all(0 <= percent <= 100 for percent in percents)
    assert (await bench.backend.fetch_template(bench.template, lambda percent, text: None)).virtual_bytes == (
        first.virtual_bytes
    )


async def test_a_template_with_a_wrong_checksum_is_rejected_and_never_seen_under_its_name(bench: Bench) -> None:
    await bench.backend.attach_pool(bench.pool)
    fetched = bench.backend.fetch_template(bench.bad_template, lambda percent, text: None)
    assert await _reason(bench, fetched) is Reason.REJECTED
    clone = bench.backend.create_volume(bench.pool, "clone", 0, bench.bad_template.name)
    assert await _reason(bench, clone) is Reason.MISSING


async def test_a_removed_template_is_gone_and_may_be_removed_again(bench: Bench) -> None:
    await bench.volume("clone")
    await bench.backend.delete_volume(bench.pool, "clone")
    await bench.backend.remove_template(bench.pool, bench.template.name)
    await bench.backend.remove_template(bench.pool, bench.template.name)
    clone = bench.backend.create_volume(bench.pool, "clone", 0, bench.template.name)
    assert await _reason(bench, clone) is Reason.MISSING


async def test_a_clone_is_never_smaller_than_its_template(bench: Bench) -> None:
    await bench.volume("first")
    template = await bench.backend.fetch_template(bench.template, lambda percent, text: None)
    small = await bench.backend.create_volume(bench.pool, "small", MIB, bench.template.name)
    assert small.virtual_bytes == template.virtual_bytes
    large = await bench.backend.create_volume(bench.pool, "large", 1024 * MIB, bench.template.name)
    assert large.virtual_bytes == max(1024 * MIB, template.virtual_bytes)


async def test_a_blank_volume_has_its_size_and_making_it_again_changes_nothing(bench: Bench) -> None:
    await bench.backend.attach_pool(bench.pool)
    for _ in range(2):
        assert (await bench.backend.create_volume(bench.pool, "blank", 64 * MIB, "")).virtual_bytes == 64 * MIB
    await bench.backend.delete_volume(bench.pool, "blank")
    await bench.backend.delete_volume(bench.pool, "blank")
    assert (await bench.backend.create_volume(bench.pool, "blank", 32 * MIB, "")).virtual_bytes == 32 * MIB


# ---- networks


async def test_bridges_come_and_go_however_often_they_are_asked_for(bench: Bench) -> None:
    first, second = bench.networks
    for network in (first, second, first):
        await bench.backend.plug_network(network)
    assert await bench.bridges() == {first, second}
    for network in (first, first):
        await bench.backend.unplug_network(network)
    assert await bench.bridges() == {second}
    await bench.backend.unplug_network(second)
    assert await bench.bridges() == set()


async def test_a_bridge_with_a_running_guest_stays(bench: Bench) -> None:
    vm = bench.guest(await bench.volume())
    await bench.backend.plug_network(bench.networks[0])
    await bench.backend.start_domain(vm)
    await bench.backend.unplug_network(bench.networks[0])
    assert await bench.bridges() == {bench.networks[0]}


# ---- guests


async def test_a_started_guest_is_seen_as_it_is(bench: Bench) -> None:
    vm = bench.guest(await bench.volume(), epoch=7)
    await bench.backend.plug_network(bench.networks[0])
    facts = await bench.backend.start_domain(vm)
    assert facts.vnc_port > 0
    there = await bench.backend.seen(vm.name)
    assert there is not None
    assert (there.name, there.uuid, there.epoch, there.running, there.router) == (vm.name, vm.uuid, 7, True, False)
    assert await bench.backend.inventory() == [there]
    assert await bench.backend.networks_of(vm.name) == (bench.networks[0],)


async def test_starting_again_in_the_same_epoch_changes_nothing(bench: Bench) -> None:
    vm = bench.guest(await bench.volume())
    await bench.backend.plug_network(bench.networks[0])
    first = await bench.backend.start_domain(vm)
    assert await bench.backend.start_domain(vm) == first
    assert len(await bench.backend.inventory()) == 1
    assert bench.notices == []


async def test_two_guests_have_consoles_of_their_own(bench: Bench) -> None:
    await bench.backend.plug_network(bench.networks[0])
    consoles = set()
    for number in (3, 4):
        vm = bench.guest(await bench.volume(f"root-{number}"), number=number)
        facts = await bench.backend.start_domain(vm)
        consoles.add((facts.vnc_host, facts.vnc_port))
    assert len(consoles) == 2


async def test_a_guest_without_its_volume_is_refused_and_leaves_nothing(bench: Bench) -> None:
    await bench.backend.attach_pool(bench.pool)
    await bench.backend.plug_network(bench.networks[0])
    assert await _reason(bench, bench.backend.start_domain(bench.guest("never-made"))) is Reason.MISSING
    assert await bench.backend.inventory() == []


async def test_a_guest_beyond_the_hosts_memory_is_refused_and_leaves_nothing(bench: Bench) -> None:
    vm = bench.guest(await bench.volume(), ram_mib=bench.too_much_ram_mib)
    await bench.backend.plug_network(bench.networks[0])
    assert await _reason(bench, bench.backend.start_domain(vm)) is Reason.NO_ROOM
    assert await bench.backend.inventory() == []


async def test_a_guest_with_more_cores_than_the_host_is_refused(bench: Bench) -> None:
    vm = msgspec.structs.replace(bench.guest(await bench.volume()), cpus=4096)
    await bench.backend.plug_network(bench.networks[0])
    assert await _reason(bench, bench.backend.start_domain(vm)) is Reason.NO_ROOM
    assert await bench.backend.inventory() == []


async def test_a_removed_guest_is_gone_its_disk_stays_and_nobody_is_told(bench: Bench) -> None:
    vm = bench.guest(await bench.volume())
    await bench.backend.plug_network(bench.networks[0])
    await bench.backend.start_domain(vm)
    for _ in range(2):
        await bench.backend.remove_domain(vm.name)
        assert await bench.backend.seen(vm.name) is None
        assert await bench.backend.networks_of(vm.name) == ()
    assert await bench.backend.inventory() == []
    assert isinstance(await bench.backend.start_domain(vm), VmFacts)
    assert bench.notices == []


async def test_a_guest_obeys_a_polite_request_and_nobody_is_told(bench: Bench) -> None:
    vm = bench.guest(await bench.volume())
    await bench.backend.plug_network(bench.networks[0])
    await bench.backend.start_domain(vm)
    await bench.booted(vm.name)
    assert await bench.backend.shut_down(vm.name, bench.grace_seconds)
    there = await bench.backend.seen(vm.name)
    assert there is None or not there.running
    assert await bench.backend.shut_down(vm.name, bench.grace_seconds)
    assert bench.notices == []


async def test_a_guest_that_ignores_the_request_still_runs_after_the_grace(bench: Bench) -> None:
    await bench.backend.attach_pool(bench.pool)
    await bench.backend.create_volume(bench.pool, "blank", 16 * MIB, "")
    vm = bench.guest("blank")
    bench.ignores_requests(vm.name)
    await bench.backend.plug_network(bench.networks[0])
    await bench.backend.start_domain(vm)
    assert not await bench.backend.shut_down(vm.name, 1.0)
    there = await bench.backend.seen(vm.name)
    assert there is not None
    assert there.running


async def test_asking_nobody_to_stop_is_no_failure(bench: Bench) -> None:
    assert await bench.backend.shut_down("i-2-99-VM", 1.0)
    assert await bench.backend.seen("i-2-99-VM") is None


async def test_a_guest_turned_off_from_inside_is_noticed_with_its_epoch(bench: Bench) -> None:
    vm = bench.guest(await bench.volume(), epoch=5)
    await bench.backend.plug_network(bench.networks[0])
    await bench.backend.start_domain(vm)
    await bench.booted(vm.name)
    await bench.shut_down_inside(vm.name)
    await bench.noticed(vm.name, 5, VmChange.STOPPED)
    assert {each[1] for each in bench.notices} == {vm.uuid}
    there = await bench.backend.seen(vm.name)
    assert there is None or not there.running


async def test_a_crash_is_noticed(bench: Bench) -> None:
    vm = bench.guest(await bench.volume(), epoch=5)
    await bench.backend.plug_network(bench.networks[0])
    await bench.backend.start_domain(vm)
    await bench.crash(vm.name)
    await bench.noticed(vm.name, 5, VmChange.CRASHED)
    there = await bench.backend.seen(vm.name)
    assert there is None or not there.running


async def test_guests_run_on_while_the_backend_is_closed(bench: Bench) -> None:
    vm = bench.guest(await bench.volume(), epoch=5)
    await bench.backend.plug_network(bench.networks[0])
    facts = await bench.backend.start_domain(vm)
    await bench.reopen()
    there = await bench.backend.seen(vm.name)
    assert there is not None
    assert (there.epoch, there.running) == (5, True)
    assert await bench.backend.start_domain(vm) == facts
    assert await bench.backend.networks_of(vm.name) == (bench.networks[0],)


# ---- routers


async def test_a_router_runs_what_it_was_given_and_is_seen_as_a_router(bench: Bench) -> None:
    router = bench.router(epoch=3)
    await bench.backend.plug_network(bench.networks[1])
    first = bench.config(1)
    assert await bench.backend.start_router(router, first) == RouterFacts(1, fingerprint(first))
    there = await bench.backend.seen(router.name)
    assert there is not None
    assert (there.name, there.uuid, there.epoch, there.running, there.router) == (
        router.name,
        router.uuid,
        3,
        True,
        True,
    )
    assert await bench.backend.inventory() == [there]
    assert await bench.backend.networks_of(router.name) == (bench.networks[1],)
    await bench.backend.unplug_network(bench.networks[1])
    assert await bench.bridges() == {bench.networks[1]}


async def test_a_router_takes_the_same_and_newer_generations_and_refuses_older_ones(bench: Bench) -> None:
    router = bench.router()
    await bench.backend.plug_network(bench.networks[1])
    await bench.backend.start_router(router, bench.config(1))
    third = bench.config(3, hosts=3)
    for _ in range(2):
        assert await bench.backend.configure_router(router.name, third) == RouterFacts(3, fingerprint(third))
    older = bench.backend.configure_router(router.name, bench.config(2))
    assert await _reason(bench, older) is Reason.STALE_EPOCH
    assert await bench.backend.configure_router(router.name, third) == RouterFacts(3, fingerprint(third))


async def test_starting_a_router_again_changes_nothing(bench: Bench) -> None:
    router = bench.router()
    await bench.backend.plug_network(bench.networks[1])
    facts = await bench.backend.start_router(router, bench.config(2))
    assert await bench.backend.start_router(router, bench.config(2)) == facts
    assert len(await bench.backend.inventory()) == 1


async def test_a_removed_router_is_gone_and_so_is_its_bridge(bench: Bench) -> None:
    router = bench.router()
    await bench.backend.plug_network(bench.networks[1])
    await bench.backend.start_router(router, bench.config(1))
    for _ in range(2):
        await bench.backend.remove_router(router.name)
        assert await bench.backend.seen(router.name) is None
    await bench.backend.unplug_network(bench.networks[1])
    assert await bench.bridges() == set()
    assert await bench.backend.inventory() == []


async def test_configuring_a_router_that_is_not_there_is_refused(bench: Bench) -> None:
    configured = bench.backend.configure_router("r-99-VM", bench.config(1))
    assert await _reason(bench, configured) is Reason.MISSING


async def test_a_router_runs_on_while_the_backend_is_closed(bench: Bench) -> None:
    router = bench.router(epoch=4)
    await bench.backend.plug_network(bench.networks[1])
    await bench.backend.start_router(router, bench.config(2))
    await bench.reopen()
    there = await bench.backend.seen(router.name)
    assert there is not None
    assert (there.epoch, there.running) == (4, True)
    older = bench.backend.configure_router(router.name, bench.config(1))
    assert await _reason(bench, older) is Reason.STALE_EPOCH


# ---- whole operations


class Operator:
    """The agent's executor on the bench."""

    def __init__(self, bench: Bench) -> None:
        self.executor = Executor(
            host="h", backend=bench.backend, journal=Journal.in_memory(), noticed=lambda name, uuid, epoch, change: None
        )

    async def do(self, operation: AnyOperation) -> AnyResult:
        return await self.executor.execute(operation, lambda percent, text: None)


async def test_start_reboot_and_stop_of_a_guest_leave_nothing_but_its_disk(bench: Bench) -> None:
    operator = Operator(bench)
    vm = bench.guest(await bench.volume())
    assert isinstance(await operator.do(StartVm(vm)), VmFacts)
    assert await bench.bridges() == {bench.networks[0]}
    assert isinstance(await operator.do(RebootVm(vm, grace_seconds=1)), VmFacts)
    there = await bench.backend.seen(vm.name)
    assert there is not None
    assert there.running
    assert await operator.do(StopVm(vm.name, vm.uuid, vm.epoch, forced=True)) == Done()
    assert await bench.bridges() == set()
    assert await bench.backend.inventory() == []
    assert await _reason(bench, operator.do(StartVm(vm))) is Reason.STALE_EPOCH
    assert await bench.backend.inventory() == []
    assert await bench.bridges() == set()


async def test_a_newer_life_replaces_one_that_turned_itself_off(bench: Bench) -> None:
    operator = Operator(bench)
    volume = await bench.volume()
    await operator.do(StartVm(bench.guest(volume, epoch=1)))
    await bench.crash(bench.guest(volume).name)
    await bench.noticed(bench.guest(volume).name, 1, VmChange.CRASHED)
    await operator.do(StartVm(bench.guest(volume, epoch=2)))
    there = await bench.backend.seen(bench.guest(volume).name)
    assert there is not None
    assert (there.epoch, there.running) == (2, True)
    stop = StopVm(there.name, there.uuid, 1, forced=True)
    assert await operator.do(stop) == Done()
    assert await bench.backend.seen(there.name) == there


async def test_a_refused_start_leaves_neither_guest_nor_bridge(bench: Bench) -> None:
    operator = Operator(bench)
    vm = bench.guest(await bench.volume(), ram_mib=bench.too_much_ram_mib)
    assert await _reason(bench, operator.do(StartVm(vm))) is Reason.NO_ROOM
    assert await bench.backend.inventory() == []
    assert await bench.bridges() == set()
    unreachable = PoolRef("00000000-0000-4000-8000-00000000cccc", PoolKind.SHARED_MOUNT_POINT, "/nowhere/at/all")
    disk = msgspec.structs.replace(vm.disks[0], pool=unreachable)
    lost = msgspec.structs.replace(vm, disks=(disk,), ram_mib=bench.ram_mib)
    with pytest.raises(Refused):
        await operator.do(StartVm(lost))
    assert await bench.backend.inventory() == []
    assert await bench.bridges() == set()


async def test_a_router_is_started_configured_and_stopped_whole(bench: Bench) -> None:
    operator = Operator(bench)
    router = bench.router(epoch=2)
    assert isinstance(await operator.do(StartRouter(router, bench.config(1))), RouterFacts)
    applied = await operator.do(ConfigureRouter(router.name, 2, bench.config(2)))
    assert isinstance(applied, RouterFacts)
    assert applied.generation == 2
    wrong_life = operator.do(ConfigureRouter(router.name, 1, bench.config(3)))
    assert await _reason(bench, wrong_life) is Reason.STALE_EPOCH
    assert await operator.do(StopRouter(router.name, router.uuid, 2)) == Done()
    assert await bench.backend.inventory() == []
    assert await bench.bridges() == set()
