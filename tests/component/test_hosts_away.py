"""All servers were away, for a moment or an hour: no host is called Down for it, and one that is lost still is."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_setup import add_simulated, all_up, enrolled_fleet, fleet_of, states
from hosts_setup import Site, agent_of, site_in, until
from sqlalchemy import select, update

from pileus.server.db.tables.host import host
from pileus.server.domain.host import HostState
from pileus.testing.clock import FakeClock

pytestmark = pytest.mark.anyio

WAIT = 180.0
HOUR = 3600.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def moving() -> FakeClock:
    """Time that begins now, as certificates do."""
    return FakeClock(time.time_ns() // 1_000_000)


@pytest.fixture
async def site(tmp_path: Path, moving: FakeClock) -> AsyncIterator[Site]:
    async with site_in(tmp_path, moving) as site:
        port = site.endpoint.port
        await site.stop()
        # Sweeps are made by hand.
        site.settings = replace(
            site.settings, port=port, heartbeat_seconds=5.0, down_after_seconds=WAIT, sweep_seconds=10.0
        )
        await site.start()
        yield site


async def swept(site: Site, clock: FakeClock, *, seconds: float) -> None:
    """Time passes, and the server looks every 10 seconds, as it does by itself."""
    assert site.listener is not None
    for _ in range(round(seconds / 10)):
        await site.listener.sweep()
        clock.advance(10)
    await site.listener.sweep()


async def away(site: Site, clock: FakeClock, *, seconds: float, killed: bool, name: str) -> None:
    """Every server is away for so long; the next one has this name."""
    before = server_of(site)
    await site.stop()
    if killed:
        # Nothing was written any more, as after kill -9.
        with site.database.write() as tx:
            for host_id, server in before.items():
                values = {"server": server, "disconnected_at": None, "state": str(HostState.UP)}
                tx.execute(update(host).where(host.c.id == host_id).values(**values))
    clock.advance(seconds)
    site.settings = replace(site.settings, server=name)
    await site.start()


def server_of(site: Site) -> dict[int, str | None]:
    with site.database.read() as tx:
        return {row["id"]: row["server"] for row in tx.all(select(host.c.id, host.c.server))}


def held_by_us(site: Site, *host_ids: int) -> bool:
    servers = server_of(site)
    return all(servers[host_id] == site.settings.server for host_id in host_ids)


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("seconds", [5.0, HOUR])
@pytest.mark.parametrize("name", ["server-1", "server-2"])
async def test_hosts_that_come_back_were_never_down(
    site: Site, moving: FakeClock, killed: bool, seconds: float, name: str
) -> None:
    ids, agents = [], []
    async with contextlib.AsyncExitStack() as stack:
        for number in range(2):
            host_id, identity = await site.enrolled(f"h{number}")
            ids.append(host_id)
            agents.append(await stack.enter_async_context(agent_of(site, identity)))
        await until(lambda: held_by_us(site, *ids))
        await swept(site, moving, seconds=60)
        before = len(site.heard.states)
        await away(site, moving, seconds=seconds, killed=killed, name=name)
        assert site.listener is not None
        await site.listener.sweep()
        await until(lambda: held_by_us(site, *ids))
        await swept(site, moving, seconds=2 * WAIT)
        assert {site.state(host_id) for host_id in ids} == {HostState.UP}
        assert HostState.DOWN not in [state for _, state in site.heard.states[before:]]
        assert HostState.DISCONNECTED not in [state for _, state in site.heard.states[before:]]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_host_that_does_not_come_back_has_the_whole_wait_from_when_a_server_looks_again(
    site: Site, moving: FakeClock, killed: bool
) -> None:
    good, identity = await site.enrolled("good")
    lost, lost_identity = await site.enrolled("lost")
    async with agent_of(site, identity):
        async with agent_of(site, lost_identity):
            await until(lambda: held_by_us(site, good, lost))
            await swept(site, moving, seconds=30)
            server = site.settings.server
            await site.stop()
        # Its agent ended while no server was there.
        with site.database.write() as tx:
            values = {"server": server if killed else None, "state": str(HostState.UP)}
            tx.execute(update(host).where(host.c.id == lost).values(**values))
        moving.advance(HOUR)
        site.settings = replace(site.settings, server="server-2")
        await site.start()
        await until(lambda: held_by_us(site, good))
        await swept(site, moving, seconds=WAIT - 20)
        assert site.state(lost) is not HostState.DOWN
        # What is written of the host may be a minute old, and the disconnection counts from when it was noticed.
        await swept(site, moving, seconds=WAIT)
        assert site.state(lost) is HostState.DOWN
        assert site.state(good) is HostState.UP


async def test_a_farm_that_was_off_and_was_off_again_counts_no_silence_together(site: Site, moving: FakeClock) -> None:
    lost, identity = await site.enrolled("lost")
    async with agent_of(site, identity):
        await until(lambda: held_by_us(site, lost))
    await until(lambda: site.state(lost) is HostState.DISCONNECTED)
    for number in range(4):
        await swept(site, moving, seconds=WAIT - 30)
        await away(site, moving, seconds=HOUR, killed=False, name=f"server-{number}")
    assert site.state(lost) is HostState.DISCONNECTED
    await swept(site, moving, seconds=WAIT + 10)
    assert site.state(lost) is HostState.DOWN


async def test_a_fleet_is_back_after_an_hour_without_a_server_and_no_host_was_down(
    site: Site, moving: FakeClock
) -> None:
    add_simulated(site, 600)
    _, identity = await enrolled_fleet(site)
    async with fleet_of(site, identity):
        await all_up(site, 600)
        await swept(site, moving, seconds=30)
        await away(site, moving, seconds=HOUR, killed=True, name="server-2")
        await all_up(site, 600)
        await swept(site, moving, seconds=2 * WAIT)
        assert states(site) == {HostState.UP: 600}
    assert HostState.DOWN not in [state for _, state in site.heard.states]
