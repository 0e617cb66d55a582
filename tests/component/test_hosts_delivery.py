"""Operations over real TLS sockets: each is done once, in order, whatever happens to the line between."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hosts_setup import FACTS, Site, agent_of, heard, hello, raw_line, site_in, until
from sqlalchemy import select, update
from websockets.exceptions import ConnectionClosed

from pileus.agent.backends.simulator import Fault, World
from pileus.agent.enrolment import Token, enrol
from pileus.agent.journal import Journal
from pileus.server.db.tables.host import host, host_stats, host_watch
from pileus.server.domain.host import HostState
from pileus.server.hosts import delivery, operations
from pileus.wire.messages import (
    Answer,
    Deliver,
    Forget,
    GoAway,
    Happened,
    Heartbeat,
    HostStats,
    Progress,
    Report,
    VmChange,
    VmSeen,
    Welcome,
    encode,
)
from pileus.wire.operations import (
    AttachPool,
    CreateVolume,
    Done,
    FetchTemplate,
    PoolFacts,
    Reason,
    Refusal,
    StartVm,
    StopVm,
    VmFacts,
    VmSpec,
)
from pileus.wire.places import Isolation, NetworkRef, NicSpec, PoolKind, PoolRef, Traffic

pytestmark = pytest.mark.anyio

POOL = PoolRef("p1", PoolKind.SHARED_MOUNT_POINT, "/pool")
NET = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 7)


def vm(epoch: int = 1) -> VmSpec:
    nic = NicSpec("02:00:00:00:00:03", "10.1.1.2", 24, NET, 0)
    return VmSpec("i-2-3-VM", "u3", epoch, 1, 500, 128, (), (nic,), "secret")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as site:
        yield site


async def test_an_operation_is_delivered_done_answered_and_forgotten(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        site.request(host_id, "op-1", StartVm(vm()))
        answered = await site.answered("op-1")
        assert isinstance(answered.result, VmFacts)
        assert agent.world.running("i-2-3-VM") == [(identity.hosts()[0].uuid, 1)]
        assert [told.operation_id for told in site.heard.answers] == ["op-1"]
        await until(lambda: asyncio.run(agent.journal.unforgotten(identity.hosts()[0].uuid)) == [])


async def test_a_refusal_comes_back_with_its_reason(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        agent.faults.arm(Fault("start_domain", reason=Reason.NO_ROOM))
        site.request(host_id, "op-1", StartVm(vm()))
        answered = await site.answered("op-1")
    assert answered.refusal is not None
    assert answered.refusal.reason is Reason.NO_ROOM
    assert answered.result is None
    assert list(agent.world.guests()) == []


async def test_operations_are_counted_by_kind_and_outcome_and_timed(site: Site) -> None:
    host_id, identity = await site.enrolled()
    kinds = (delivery.DELIVERED.value("StartVm"), delivery.LATENCY.count("StartVm"))
    done, refused = (delivery.ANSWERED.value("StartVm", outcome) for outcome in ("done", "no-room"))
    async with agent_of(site, identity) as agent:
        agent.faults.arm(Fault("start_domain", reason=Reason.NO_ROOM))
        for operation_id in ("op-1", "op-2"):
            site.request(host_id, operation_id, StartVm(vm()))
            await site.answered(operation_id)
    assert delivery.DELIVERED.value("StartVm") == kinds[0] + 2
    assert delivery.LATENCY.count("StartVm") == kinds[1] + 2
    assert delivery.ANSWERED.value("StartVm", "done") == done + 1
    assert delivery.ANSWERED.value("StartVm", "no-room") == refused + 1


async def test_what_was_asked_while_nobody_was_connected_is_delivered_in_order(site: Site) -> None:
    host_id, identity = await site.enrolled()
    for number in range(1, 6):
        site.request(host_id, f"op-{number}", StartVm(vm(number)) if number % 2 else StopVm("i-2-3-VM", "u3", number))
    async with agent_of(site, identity) as agent:
        await site.answered("op-5")
        assert [told.operation_id for told in site.heard.answers] == [f"op-{number}" for number in range(1, 6)]
        assert agent.world.running("i-2-3-VM") == [(identity.hosts()[0].uuid, 5)]


async def test_asking_twice_is_asking_once(site: Site) -> None:
    host_id, _ = site.add_host()
    site.request(host_id, "op-1", AttachPool(POOL))
    site.request(host_id, "op-1", AttachPool(POOL))
    with site.database.read() as tx:
        assert operations.pending_count(tx) == 1
        assert operations.answer_of(tx, "op-1") is None


async def test_an_answer_that_could_not_be_stored_is_asked_for_again(site: Site) -> None:
    host_id, identity = await site.enrolled()
    site.heard.fail_answers = 4  # Twice the batch, and then the message alone.
    async with agent_of(site, identity) as agent:
        site.request(host_id, "op-1", AttachPool(POOL))
        assert isinstance((await site.answered("op-1")).result, PoolFacts)
    assert [call for _, call, _ in agent.faults.calls] == ["attach_pool"]


async def test_an_answer_that_was_not_stored_is_sent_again_on_the_next_line(site: Site) -> None:
    host_id, identity = await site.enrolled()
    site.heard.fail_answers = 2  # The batch, and then the message alone.
    async with agent_of(site, identity):
        site.request(host_id, "op-1", AttachPool(POOL))
        await until(lambda: site.heard.fail_answers == 0)
        assert site.operation("op-1").pending
        await site.stop()
        await site.start()
    async with agent_of(site, identity):
        assert isinstance((await site.answered("op-1")).result, PoolFacts)


async def test_a_redelivery_after_the_line_broke_returns_the_first_answer(site: Site) -> None:
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    journal = Journal(identity.state_dir / "journal.db")
    first = Answer("op-1", uuid, result=PoolFacts(7, 7))
    await journal.begin(uuid, "op-1")
    await journal.finish(first)
    journal.close()
    site.request(host_id, "op-1", AttachPool(POOL))
    async with agent_of(site, identity) as agent:
        assert (await site.answered("op-1")).result == PoolFacts(7, 7)
        assert agent.faults.calls == []


async def test_an_undone_operation_is_delivered_again_on_every_line_until_it_is_answered(site: Site) -> None:
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    site.request(host_id, "op-1", AttachPool(POOL))
    for _ in range(3):
        async with raw_line(site, identity) as line:
            assert isinstance(await hello(line, uuid), Welcome)
            delivered = await heard(line)
            assert isinstance(delivered, Deliver)
            assert (delivered.operation_id, delivered.host, delivered.queue) == ("op-1", uuid, "q")
            assert delivered.operation == AttachPool(POOL)
    async with raw_line(site, identity) as line:
        await hello(line, uuid)
        await heard(line)
        await line.send(encode(Answer("op-1", uuid, result=Done())))
        assert await heard(line) == Forget(("op-1",))
        await line.send(encode(Answer("op-1", uuid, result=PoolFacts(1, 1))))
        assert await heard(line) == Forget(("op-1",))
    assert site.operation("op-1").result == Done()
    assert len(site.heard.answers) == 1


async def test_answers_of_operations_nobody_knows_are_forgotten(site: Site) -> None:
    _, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    async with raw_line(site, identity) as line:
        await hello(line, uuid)
        await line.send(encode(Answer("never-asked", uuid, result=Done())))
        assert await heard(line) == Forget(("never-asked",))
    assert site.heard.answers == []


async def test_a_host_cannot_answer_for_another(site: Site) -> None:
    victim, victims = await site.enrolled("victim")
    _, identity = await site.enrolled("other")
    site.request(victim, "op-1", AttachPool(POOL))
    async with raw_line(site, identity) as line:
        await hello(line, identity.hosts()[0].uuid)
        for claimed in (victims.hosts()[0].uuid, identity.hosts()[0].uuid):
            await line.send(encode(Answer("op-1", claimed, result=Done())))
            await heard(line)
    assert site.operation("op-1").pending


async def test_withdrawn_operations_are_not_delivered_and_a_late_answer_changes_nothing(site: Site) -> None:
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    site.request(host_id, "op-1", AttachPool(POOL))
    site.request(host_id, "op-2", AttachPool(POOL))
    with site.database.write() as tx:
        assert operations.withdraw(tx, "op-1", "given up")
        assert not operations.withdraw(tx, "op-1", "given up")
    async with raw_line(site, identity) as line:
        await hello(line, uuid)
        delivered = await heard(line)
        assert isinstance(delivered, Deliver)
        assert delivered.operation_id == "op-2"
        await line.send(encode(Answer("op-1", uuid, result=Done())))
        assert await heard(line) == Forget(("op-1",))
    assert site.operation("op-1").refusal == Refusal(Reason.UNREACHABLE, "given up")
    with site.database.write() as tx:
        assert [gone.operation_id for gone in operations.withdraw_all(tx, host_id, "host removed")] == ["op-2"]


async def test_an_empty_answer_is_a_failure(site: Site) -> None:
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    site.request(host_id, "op-1", AttachPool(POOL))
    async with raw_line(site, identity) as line:
        await hello(line, uuid)
        await heard(line)
        await line.send(encode(Answer("op-1", uuid)))
        await heard(line)
    refusal = site.operation("op-1").refusal
    assert refusal is not None
    assert refusal.reason is Reason.FAILED


async def test_progress_of_a_long_operation_is_written(site: Site) -> None:
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    site.request(host_id, "op-1", FetchTemplate(POOL, "t", "https://s/t", "00"))
    async with raw_line(site, identity) as line:
        await hello(line, uuid)
        await heard(line)
        await line.send(encode(Progress("op-1", uuid, 42, "x" * 1000)))
        await until(lambda: site.progress_of("op-1") == 42)
        await line.send(encode(Progress("never-asked", uuid, 42, "")))
        await line.send(encode(Progress("op-1", uuid, 4200, "")))
        await until(lambda: site.progress_of("op-1") == 100)


@pytest.mark.parametrize(
    "garbage", [b"", b"\xc1", b"\x00" * 100, b"\x81\xa1m\xa5Hello", "text", encode(Welcome(1, "s", 1, 1))]
)
async def test_garbage_ends_its_own_line_and_no_other(site: Site, garbage: bytes | str) -> None:
    good, good_identity = await site.enrolled("good")
    _, identity = await site.enrolled("bad")
    async with agent_of(site, good_identity) as agent:
        await until(lambda: site.state(good) is HostState.UP)
        for introduced in (False, True):
            async with raw_line(site, identity) as line:
                if introduced:
                    await hello(line, identity.hosts()[0].uuid)
                await line.send(garbage)
                assert isinstance(await heard(line), GoAway)
                with pytest.raises(ConnectionClosed):
                    await heard(line)
        assert agent.connection.welcomed.is_set()
        site.request(good, "op-1", AttachPool(POOL))
        assert (await site.answered("op-1")).refusal is None
        assert site.state(good) is HostState.UP


async def test_a_host_that_connects_anew_replaces_its_old_line(site: Site) -> None:
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    async with raw_line(site, identity) as old:
        await hello(old, uuid)
        async with raw_line(site, identity) as new:
            await hello(new, uuid)
            assert isinstance(await heard(old), GoAway)
            with pytest.raises(ConnectionClosed):
                await heard(old)
            site.request(host_id, "op-1", AttachPool(POOL))
            assert isinstance(await heard(new), Deliver)
            assert site.state(host_id) is HostState.UP
    await until(lambda: site.state(host_id) is HostState.DISCONNECTED)


async def test_a_connection_brings_the_inventory_and_what_the_host_is(site: Site) -> None:
    host_id, identity = await site.enrolled()
    holds = (VmSeen("i-2-3-VM", "u3", 1, running=True),)
    async with raw_line(site, identity) as line:
        await hello(line, identity.hosts()[0].uuid, holds=holds)
    assert [(each, intro.holds) for each, intro in site.heard.inventories] == [(host_id, holds)]
    with site.database.read() as tx:
        row = tx.one(select(host).where(host.c.id == host_id))
    assert row is not None
    assert (row["cpus"], row["memory_bytes"], row["version"]) == (FACTS.cpus, FACTS.memory_bytes, FACTS.version)


async def test_a_host_is_up_then_disconnected_then_down_and_up_again(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity):
        await until(lambda: site.state(host_id) is HostState.UP)
    await until(lambda: site.state(host_id) is HostState.DISCONNECTED)
    assert site.listener is not None
    await site.listener.sweep()
    assert site.state(host_id) is HostState.DISCONNECTED
    with site.database.write() as tx:
        long_ago = tx.now - 181_000
        tx.execute(update(host).where(host.c.id == host_id).values(disconnected_at=long_ago))
        tx.execute(update(host_watch).values(since_at=long_ago))
    await site.listener.sweep()
    assert site.state(host_id) is HostState.DOWN
    async with agent_of(site, identity):
        await until(lambda: site.state(host_id) is HostState.UP)
    told = [state for told, state in site.heard.states if told == host_id]
    assert told[:4] == [HostState.UP, HostState.DISCONNECTED, HostState.DOWN, HostState.UP]


async def test_a_line_without_heartbeats_is_ended(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with raw_line(site, identity) as line:
        await hello(line, identity.hosts()[0].uuid)
        assert isinstance(await heard(line), GoAway)
    await until(lambda: site.state(host_id) is HostState.DISCONNECTED)


async def test_a_restarted_server_holds_nobody_s_line_and_gives_hosts_time_to_come_back(site: Site) -> None:
    host_id, _ = await site.enrolled()
    with site.database.write() as tx:
        tx.execute(update(host).where(host.c.id == host_id).values(state=str(HostState.UP), server="server-1"))
    await site.stop()
    await site.start()
    with site.database.read() as tx:
        row = tx.one(select(host.c.server, host.c.state, host.c.disconnected_at).where(host.c.id == host_id))
        assert row is not None
        assert (row["server"], row["state"]) == (None, HostState.UP)
        assert row["disconnected_at"] is not None


async def test_a_host_that_moved_to_another_server_is_not_put_out_by_the_first(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with raw_line(site, identity) as line:
        await hello(line, identity.hosts()[0].uuid)
        with site.database.write() as tx:
            tx.execute(update(host).where(host.c.id == host_id).values(server="server-2"))
    await site.stop()
    assert site.state(host_id) is HostState.UP


async def test_a_guest_that_changes_by_itself_is_told_and_so_are_statistics(site: Site) -> None:
    host_id, identity = await site.enrolled()
    uuid = identity.hosts()[0].uuid
    async with agent_of(site, identity) as agent:
        site.request(host_id, "op-1", StartVm(vm()))
        await site.answered("op-1")
        agent.backends[uuid].crash_guest("i-2-3-VM")
        await until(lambda: bool(site.heard.happened))
        assert site.heard.happened == [(host_id, Happened(uuid, "i-2-3-VM", "u3", 1, VmChange.CRASHED))]
        await until(lambda: bool(site.heard.reports))
    with site.database.read() as tx:
        assert tx.scalar(select(host_stats.c.taken_at).where(host_stats.c.host_id == host_id)) is not None


async def test_reports_about_hosts_of_others_are_ignored(site: Site) -> None:
    _, victims = await site.enrolled("victim")
    _, identity = await site.enrolled("other")
    victim = victims.hosts()[0].uuid
    async with raw_line(site, identity) as line:
        await hello(line, identity.hosts()[0].uuid)
        await line.send(encode(Report((HostStats(victim, 1, 1, 1, 1, 1),))))
        await line.send(encode(Happened(victim, "i-2-3-VM", "u3", 1, VmChange.CRASHED)))
        await line.send(encode(Heartbeat()))
        await line.send(encode(Answer("fence", identity.hosts()[0].uuid, result=Done())))
        assert await heard(line) == Forget(("fence",))
    assert site.heard.reports == []
    assert site.heard.happened == []


async def test_the_agent_comes_back_by_itself_and_finishes_what_it_was_asked(site: Site) -> None:
    host_id, identity = await site.enrolled()
    port = site.endpoint.port
    async with agent_of(site, identity) as agent:
        await until(lambda: site.state(host_id) is HostState.UP)
        await site.stop()
        site.request(host_id, "op-1", AttachPool(POOL))
        site.settings = type(site.settings)("server-1", address="127.0.0.1", port=port, heartbeat_seconds=0.2)
        await site.start()
        assert isinstance((await site.answered("op-1")).result, PoolFacts)
        assert agent.connection.welcomed.is_set()


async def test_one_line_serves_all_hosts_of_an_agent_and_queues_do_not_block_each_other(site: Site) -> None:
    first, identity = await site.enrolled("h")
    second, uuid = site.add_host("second")
    await enrol(identity, site.endpoint, Token(site.token(second)), address="127.0.0.1")
    world = World()
    async with agent_of(site, identity, world=world) as agent:
        for number in range(20):
            order = CreateVolume(POOL, f"v-{number}", 1 << 20)
            site.request((first, second)[number % 2], f"op-{number}", order, queue=f"queue-{number % 5}")
        for number in range(20):
            assert (await site.answered(f"op-{number}")).refusal is None
        assert world.volumes() == {f"v-{number}" for number in range(20)}
        assert {host for host, call, _ in agent.faults.calls if call == "create_volume"} == {
            identity.hosts()[0].uuid,
            uuid,
        }
