"""The agent as a program: started from a file, told to end, killed, started again."""

import asyncio
import contextlib
import json
import signal
import stat
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from hosts_setup import Site, site_in, until

from pileus.server.domain.host import HostState
from pileus.wire.messages import HostKind
from pileus.wire.operations import (
    AttachPool,
    CreateVolume,
    DeleteImage,
    Done,
    ImageFacts,
    PoolFacts,
    Reason,
    StartVm,
    StopVm,
    VmSpec,
)
from pileus.wire.places import PoolKind, PoolRef

pytestmark = pytest.mark.anyio

POOL = PoolRef("p1", PoolKind.SHARED_MOUNT_POINT, "/pool")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as site:
        yield site


def config(
    site: Site,
    *tokens: str,
    options: Mapping[str, object] | None = None,
    backend: str = "simulator",
    kind: HostKind = HostKind.ROUTING,
    more: str = "",
) -> Path:
    """An agent's configuration file; every token is a host."""
    path = site.directory / "agent.toml"
    hosts = "".join(
        f'[[host]]\ntoken = "{token}"\nbackend = "{backend}"\nkind = "{kind}"\n[host.options]\n'
        + "".join(f"{name} = {json.dumps(value)}\n" for name, value in (options or {}).items())
        for token in tokens
    )
    head = f'servers = ["127.0.0.1:{site.endpoint.port}"]\nstate_dir = "{site.directory}/state"\n{more}'
    path.write_text(head + hosts)
    return path


@contextlib.asynccontextmanager
async def running(path: Path) -> AsyncIterator[Process]:
    """The program, killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "pileus.agent", "--config", str(path), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def ended(process: Process) -> tuple[int, list[dict[str, object]]]:
    """Exit status and log of a program that ends."""
    async with asyncio.timeout(30):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in said.splitlines()]


async def test_it_enrols_serves_and_ends_gracefully_on_sigterm(site: Site) -> None:
    host_id, uuid = site.add_host()
    async with running(config(site, site.token(host_id), options={"cpus": 3, "memory_mib": 512})) as process:
        await until(lambda: site.state(host_id) is HostState.UP)
        site.request(host_id, "op-1", AttachPool(POOL))
        assert isinstance((await site.answered("op-1")).result, PoolFacts)
        site.request(host_id, "op-2", StartVm(VmSpec("i-2-3-VM", "u", 1, 1, 500, 1024, (), (), "secret")))
        refusal = (await site.answered("op-2")).refusal
        assert refusal is not None
        assert refusal.reason is Reason.NO_ROOM
        process.send_signal(signal.SIGTERM)
        status, log = await ended(process)
    assert status == 0
    assert log[-1]["event"] == "agent.ended"
    assert "secret" not in str(log)
    await until(lambda: site.state(host_id) is HostState.DISCONNECTED)
    state = site.directory / "state"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert [intro.facts.cpus for _, intro in site.heard.inventories] == [3]
    assert (state / "hosts" / uuid).is_dir()


async def test_killed_and_started_again_it_is_the_same_host_and_does_nothing_twice(site: Site) -> None:
    host_id, _ = site.add_host()
    path = config(site, site.token(host_id))
    async with running(path) as process:
        await until(lambda: site.state(host_id) is HostState.UP)
        site.heard.fail_answers = 10_000
        site.request(host_id, "op-1", StartVm(VmSpec("i-2-3-VM", "u", 1, 1, 500, 64, (), (), "")))
        site.request(host_id, "op-0", CreateVolume(POOL, "v", 1 << 20))
        await until(lambda: site.heard.fail_answers < 9_999)
        process.kill()
        await until(lambda: site.state(host_id) is HostState.DISCONNECTED)
    site.heard.fail_answers = 0
    async with running(path):
        # Simulated things die with the process, and yet the first answer counts: it was journaled.
        assert isinstance((await site.answered("op-0")).result, ImageFacts)
        # But of a guest nobody may believe that it runs.
        refusal = (await site.answered("op-1")).refusal
        assert refusal is not None
        assert refusal.reason is Reason.FAILED
        assert site.state(host_id) is HostState.UP
        site.request(host_id, "op-2", StopVm("i-2-3-VM", "u", 1))
        assert (await site.answered("op-2")).result == Done()
    assert [intro.holds for _, intro in site.heard.inventories] == [(), ()]


async def test_one_program_may_hold_several_hosts_that_share_pools(site: Site) -> None:
    hosts = [site.add_host(name)[0] for name in ("a", "b")]
    tokens = [site.token(host_id) for host_id in hosts]
    async with running(config(site, *tokens)):
        for number, host_id in enumerate(hosts):
            site.request(host_id, f"op-{number}", CreateVolume(POOL, "v", 1 << 20))
            assert (await site.answered(f"op-{number}")).refusal is None
        assert {site.state(host_id) for host_id in hosts} == {HostState.UP}


async def test_a_storage_host_is_served_by_a_store_found_by_name(site: Site, tmp_path: Path) -> None:
    host_id, _ = site.add_host("images", kind=HostKind.SECONDARY_STORAGE)
    path = config(
        site,
        site.token(host_id),
        backend="directory",
        kind=HostKind.SECONDARY_STORAGE,
        options={"path": str(tmp_path / "images"), "port": 0},
    )
    async with running(path) as process:
        await until(lambda: site.state(host_id) is HostState.UP)
        site.request(host_id, "op-1", DeleteImage("never-there"))
        assert (await site.answered("op-1")).result == Done()
        site.request(host_id, "op-2", AttachPool(POOL))
        refusal = (await site.answered("op-2")).refusal
        assert refusal is not None
        assert refusal.reason is Reason.REJECTED
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0


async def test_two_agents_never_share_a_state_directory(site: Site) -> None:
    host_id, _ = site.add_host()
    path = config(site, site.token(host_id))
    async with running(path):
        await until(lambda: site.state(host_id) is HostState.UP)
        async with running(path) as second:
            status, log = await ended(second)
    assert status == 2
    assert log[-1]["event"] == "agent.cannot_run"


async def test_a_refused_token_ends_it_with_a_reason_and_without_the_token_in_the_log(site: Site) -> None:
    async with running(config(site, "a-wrong-token")) as process:
        status, log = await ended(process)
    assert status == 2
    assert log[-1]["event"] == "agent.cannot_run"
    assert "a-wrong-token" not in str(log)


@pytest.mark.parametrize(
    ("backend", "options", "more"),
    [
        ("no-such-backend", {}, ""),
        ("simulator", {"cpus": 0}, ""),
        ("simulator", {"cpuz": 4}, ""),
        ("simulator", {}, "sidebyside = 4\n"),
        ("simulator", {}, "side_by_side = 0\n"),
    ],
)
async def test_settings_that_cannot_be_used_end_it_with_a_reason(
    site: Site, backend: str, options: dict[str, object], more: str
) -> None:
    host_id, _ = site.add_host()
    path = config(site, site.token(host_id), options=options, backend=backend, more=more)
    async with running(path) as process:
        status, log = await ended(process)
    assert status == 2
    assert log[-1]["event"] == "agent.cannot_run"
    assert log[-1]["reason"]


async def test_a_host_added_as_another_kind_is_not_served(site: Site) -> None:
    host_id, _ = site.add_host(kind=HostKind.SECONDARY_STORAGE)
    async with running(config(site, site.token(host_id))) as process:
        status, _ = await ended(process)
    assert status == 2
    assert site.state(host_id) is HostState.CONNECTING


async def test_it_can_be_told_to_end_while_no_server_answers(site: Site) -> None:
    host_id, _ = site.add_host()
    path = config(site, site.token(host_id))
    await site.stop()
    async with running(path) as process:
        assert process.stderr is not None
        first = json.loads(await process.stderr.readline())
        assert first["event"] == "enrolment.unanswered"
        process.send_signal(signal.SIGTERM)
        status, _ = await ended(process)
    assert status == 0
