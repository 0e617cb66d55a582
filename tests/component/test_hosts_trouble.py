"""Agents that are slow, hosts that fail and come back, news that comes at the wrong moment, crowds in the door."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hosts_setup import Agent, Site, agent_of, heard, hello, raw_line, site_in, until
from websockets.asyncio.client import connect

from pileus.agent.enrolment import Token, enrol
from pileus.agent.identity import pinned_context
from pileus.server.domain.host import HostState
from pileus.wire.messages import Deliver, VmChange, VmSeen
from pileus.wire.operations import AttachPool, ConfigureRouter, PoolFacts, RebootVm, StartVm, VmFacts, VmSpec
from pileus.wire.places import PoolKind, PoolRef
from pileus.wire.router import GuestData, RouterConfig

pytestmark = pytest.mark.anyio

POOL = PoolRef("p1", PoolKind.SHARED_MOUNT_POINT, "/pool")
VM = VmSpec("i-2-3-VM", "u3", 1, 1, 500, 128, (), (), "secret")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as site:
        yield site


def crash_after_start(agent: Agent, *, then_start_again: bool) -> None:
    """Let the guest crash before the answer of its start is given, and run again by then if wanted."""
    (backend,) = agent.backends.values()
    start = backend.start_domain

    async def crashing(vm: VmSpec) -> VmFacts:
        facts = await start(vm)
        backend.crash_guest(vm.name)
        # The news reaches the event loop while the operation is still under way.
        await asyncio.sleep(0)
        return await start(vm) if then_start_again else facts

    backend.start_domain = crashing  # type: ignore[method-assign]


async def test_the_answer_of_a_start_comes_before_the_news_of_its_crash(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        crash_after_start(agent, then_start_again=False)
        site.request(host_id, "start", StartVm(VM))
        await until(lambda: bool(site.heard.happened))
    assert site.heard.order == ["start", VmChange.CRASHED]


async def test_news_that_is_not_true_any_more_when_the_operation_ends_is_not_told(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        site.request(host_id, "start", StartVm(VM))
        await site.answered("start")
        crash_after_start(agent, then_start_again=True)
        site.request(host_id, "reboot", RebootVm(VM, grace_seconds=0))
        await site.answered("reboot")
        site.request(host_id, "later", AttachPool(POOL))
        await site.answered("later")
        assert [host for host, _ in agent.world.running("i-2-3-VM")] == [identity.hosts()[0].uuid]
    assert site.heard.order == ["start", "reboot", "later"]


async def test_news_between_the_inventory_and_the_welcome_is_not_lost(site: Site) -> None:
    host_id, identity = await site.enrolled()
    async with agent_of(site, identity) as agent:
        site.request(host_id, "start", StartVm(VM))
        await site.answered("start")
        (backend,) = agent.backends.values()
        take = backend.inventory

        async def and_then_crash() -> list[VmSeen]:
            seen = await take()
            backend.inventory = take  # type: ignore[method-assign]
            asyncio.get_running_loop().call_soon(backend.crash_guest, "i-2-3-VM")
            return seen

        backend.inventory = and_then_crash  # type: ignore[method-assign]
        port = site.endpoint.port
        await site.stop()
        site.settings = type(site.settings)("server-1", address="127.0.0.1", port=port, heartbeat_seconds=0.2)
        await site.start()
        await until(lambda: bool(site.heard.happened))
    assert [message.change for _, message in site.heard.happened] == [VmChange.CRASHED]
    assert [seen.running for seen in site.heard.inventories[-1][1].holds] == [True]


async def test_a_host_whose_hypervisor_fails_is_left_out_until_it_answers_again(site: Site) -> None:
    good, identity = await site.enrolled("good")
    broken, broken_uuid = site.add_host("broken")
    await enrol(identity, site.endpoint, Token(site.token(broken)), address="127.0.0.1")
    agent = Agent(site, identity)
    gate = asyncio.Event()
    try:
        await agent.start()
        backend = agent.backends[broken_uuid]
        working = backend.facts

        async def failing() -> object:
            if not gate.is_set():
                raise OSError("the hypervisor does not answer")
            return await working()

        backend.facts = failing  # type: ignore[method-assign, assignment]
        await until(lambda: site.state(good) is HostState.UP)
        assert site.state(broken) is HostState.CONNECTING
        gate.set()
        await until(lambda: site.state(broken) is HostState.UP)
    finally:
        await agent.close()


async def test_a_host_that_falls_silent_goes_down_and_comes_back_while_its_line_stays(site: Site) -> None:
    await site.stop()
    site.settings = type(site.settings)(
        "server-1", address="127.0.0.1", port=0, heartbeat_seconds=0.1, down_after_seconds=0.5, sweep_seconds=0.05
    )
    await site.start()
    good, identity = await site.enrolled("good")
    other, uuid = site.add_host("other")
    await enrol(identity, site.endpoint, Token(site.token(other)), address="127.0.0.1")
    async with agent_of(site, identity) as agent:
        await until(lambda: site.state(other) is HostState.UP)
        backend = agent.backends[uuid]
        working = backend.facts

        async def failing() -> object:
            raise OSError("the hypervisor does not answer")

        backend.facts = failing  # type: ignore[method-assign, assignment]
        await until(lambda: site.state(other) is HostState.DOWN)
        assert site.state(good) is HostState.UP
        backend.facts = working  # type: ignore[method-assign]
        await until(lambda: site.state(other) is HostState.UP)
    assert HostState.DOWN not in [state for host_id, state in site.heard.states if host_id == good]


async def test_an_agent_that_does_not_read_holds_up_no_other(site: Site) -> None:
    await site.stop()
    site.settings = type(site.settings)("server-1", address="127.0.0.1", port=0)
    await site.start()
    slow, slow_identity = await site.enrolled("slow")
    quick, quick_identity = await site.enrolled("quick")
    big = RouterConfig("n", 1, "10.1.1.1", 24, "d", guests=(GuestData("10.1.1.2", {}, user_data="x" * 4_000_000),))
    async with connect(
        site.endpoint.url,
        ssl=slow_identity.client_context(),
        compression=None,
        proxy=None,
        ping_interval=None,
        max_size=None,
        max_queue=1,
        close_timeout=0.1,
    ) as line:
        await hello(line, slow_identity.hosts()[0].uuid)
        for number in range(6):
            site.request(slow, f"big-{number}", ConfigureRouter("r", 1, big))
        async with agent_of(site, quick_identity):
            for number in range(3):
                site.request(quick, f"op-{number}", AttachPool(POOL))
                assert isinstance((await site.answered(f"op-{number}")).result, PoolFacts)
        assert isinstance(await heard(line), Deliver)


async def test_only_so_many_may_stand_in_the_door(site: Site) -> None:
    await site.stop()
    site.settings = type(site.settings)("server-1", address="127.0.0.1", port=0, most_in_the_door=2)
    await site.start()
    _, identity = await site.enrolled()
    context = pinned_context(site.authority.ca_pem)
    writers = []
    for _ in range(2):
        _, writer = await asyncio.open_connection("127.0.0.1", site.endpoint.port, ssl=context)
        writers.append(writer)
    reader, third = await asyncio.open_connection("127.0.0.1", site.endpoint.port, ssl=context)
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    for writer in (*writers, third):
        writer.close()
    uuid = identity.hosts()[0].uuid

    async def come_in() -> bool:
        try:
            async with raw_line(site, identity) as line:
                await hello(line, uuid)
                return True
        except Exception:
            return False

    async with asyncio.timeout(20):
        while not await come_in():  # noqa: ASYNC110 (the door says nothing when it has room again)
            await asyncio.sleep(0.05)
