"""Fleets of simulated hosts on the real wire: made as they are added, back after every restart, nobody else's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from fleet_setup import add_simulated, all_up, enrolled_fleet, fleet_of, never_down, states
from hosts_setup import FACTS, Site, heard, hello, raw_line, site_in, until
from sqlalchemy import select, update

from pileus.server.db.tables.host import fleet as fleet_table
from pileus.server.db.tables.host import host
from pileus.server.domain.host import HostState
from pileus.server.hosts import enrolment, fleets
from pileus.server.hosts.arrivals import Admitted, Arrivals, _Coming
from pileus.wire.messages import Ask, GoAway, HostIntro, HostKind, Introduce, Introduced, Welcome, encode
from pileus.wire.operations import AttachPool, PoolFacts, StartVm, VmFacts, VmSpec
from pileus.wire.places import PoolKind, PoolRef

pytestmark = pytest.mark.anyio

POOL = PoolRef("p1", PoolKind.SHARED_MOUNT_POINT, "/pool")
VM = VmSpec("i-2-3-VM", "u3", 1, 1, 500, 128, (), (), "")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site_in(tmp_path) as site:
        await restarted(site)
        yield site


async def restarted(site: Site) -> None:
    """The server ends and starts again on the same port."""
    port = site.endpoint.port
    await site.stop()
    site.settings = type(site.settings)("server-1", address="127.0.0.1", port=port, heartbeat_seconds=5.0)
    await site.start()


async def test_hosts_come_up_whether_added_before_the_fleet_or_after(site: Site) -> None:
    before = add_simulated(site, 700, prefix="before")
    _, identity = await enrolled_fleet(site)
    async with fleet_of(site, identity) as running:
        await all_up(site, 700)
        after = add_simulated(site, 3, prefix="after")
        await all_up(site, 703)
        assert len(running.fleet.uuids) == 703
        assert {host_id for host_id, _ in site.heard.inventories} == {*before, *after}
        # Chunks, not one frame and one transaction for all.
        assert running.fleet.room == 50_000 - 703
    await until(lambda: states(site) == {HostState.DISCONNECTED: 703})


async def test_operations_run_on_the_hosts_of_a_fleet_which_share_pools(site: Site) -> None:
    first, second = add_simulated(site, 2)
    _, identity = await enrolled_fleet(site)
    async with fleet_of(site, identity) as running:
        site.request(first, "attach", AttachPool(POOL))
        site.request(second, "start", StartVm(VM))
        assert isinstance((await site.answered("attach")).result, PoolFacts)
        assert isinstance((await site.answered("start")).result, VmFacts)
        assert [guest.name for _, guest in running.fleet.world.guests()] == ["i-2-3-VM"]
        await restarted(site)
        await all_up(site, 2)
        told = dict(site.heard.inventories)
        assert [seen.name for seen in told[second].holds] == ["i-2-3-VM"]
        assert told[first].pools == ("p1",)


async def test_hosts_are_back_after_a_restart_of_the_server_and_none_was_down(site: Site) -> None:
    add_simulated(site, 600)
    _, identity = await enrolled_fleet(site)
    async with fleet_of(site, identity):
        await all_up(site, 600)
        with never_down(site):
            await restarted(site)
            await all_up(site, 600)


async def test_a_fleet_that_starts_again_makes_the_same_hosts(site: Site) -> None:
    ids = add_simulated(site, 600)
    fleet_id, identity = await enrolled_fleet(site)
    async with fleet_of(site, identity, most=600):
        await all_up(site, 600)
    await until(lambda: states(site) == {HostState.DISCONNECTED: 600})
    add_simulated(site, 1, prefix="late")
    async with fleet_of(site, identity, most=600) as again:
        await all_up(site, 600)
        assert len(again.fleet.uuids) == 600
    with site.database.read() as tx:
        mine = tx.all(select(host.c.id).where(host.c.fleet_id == fleet_id).order_by(host.c.id))
    assert [row["id"] for row in mine] == ids


async def test_two_fleets_share_and_never_hold_one_host_both(site: Site) -> None:
    _, one = await enrolled_fleet(site, "one")
    _, two = await enrolled_fleet(site, "two")
    async with fleet_of(site, one) as first, fleet_of(site, two) as second:
        await until(lambda: connected_fleets(site) == 2)
        await asyncio.gather(first.connection.welcomed.wait(), second.connection.welcomed.wait())
        add_simulated(site, 100)
        await all_up(site, 100)
        assert not set(first.fleet.uuids) & set(second.fleet.uuids)
        assert len(first.fleet.uuids) + len(second.fleet.uuids) == 100
        assert min(len(first.fleet.uuids), len(second.fleet.uuids)) > 0


def connected_fleets(site: Site) -> int:
    with site.database.read() as tx:
        return len(tx.all(select(fleet_table.c.id).where(fleet_table.c.server.is_not(None))))


async def test_a_fleet_can_never_speak_for_a_host_that_is_not_simulated_or_not_its_own(site: Site) -> None:
    fleet_id, identity = await enrolled_fleet(site)
    real, _ = await site.enrolled("real")
    (own,) = add_simulated(site, 1)
    with site.database.write() as tx:
        assert [host_id for host_id, _ in fleets.claim(tx, fleet_id, limit=10)] == [own]
        # However it may have come to pass that the row says so: its hypervisor is not Simulator.
        tx.execute(update(host).where(host.c.id == real).values(hypervisor="KVM", fleet_id=fleet_id, wanted=1))
        uuids = {row["id"]: row["uuid"] for row in tx.all(select(host.c.id, host.c.uuid))}
    (stranger,) = add_simulated(site, 1, prefix="free")
    storage, storage_uuid = site.add_host("storage", kind=HostKind.SECONDARY_STORAGE)
    with site.database.write() as tx:
        tx.execute(update(host).where(host.c.id == storage).values(fleet_id=fleet_id))
        free = str(tx.scalar(select(host.c.uuid).where(host.c.id == stranger)))
    async with raw_line(site, identity) as line:
        welcome = await hello(line, uuids[real], storage_uuid)
        assert isinstance(welcome, Welcome)
        assert set(welcome.refused) == {uuids[real], storage_uuid}
        others = (uuids[real], storage_uuid, free, "no-such-host", uuids[own])
        await line.send(encode(Introduce(tuple(HostIntro(uuid, HostKind.ROUTING, FACTS) for uuid in others))))
        introduced = await heard(line)
        assert isinstance(introduced, Introduced)
        assert set(introduced.refused) == set(others) - {uuids[own]}
    assert site.state(own) is not HostState.CONNECTING
    assert {site.state(each) for each in (real, stranger, storage)} == {HostState.CONNECTING}
    with site.database.write() as tx:
        assert fleets.owned(tx, fleet_id, after=0, limit=10)[0][0] == own
        assert len(fleets.owned(tx, fleet_id, after=0, limit=10)) == 1
        assert [host_id for host_id, _ in fleets.claim(tx, fleet_id, limit=10)] == [stranger]


async def test_an_agent_cannot_enrol_for_a_host_that_a_fleet_took_nor_a_fleet_take_an_agents(site: Site) -> None:
    fleet_id, _ = await enrolled_fleet(site)
    taken, free = add_simulated(site, 2)
    with site.database.write() as tx:
        assert [host_id for host_id, _ in fleets.claim(tx, fleet_id, limit=1)] == [taken]
        assert not fleets.take_for_agent(tx, taken)
        assert fleets.take_for_agent(tx, free)
        assert fleets.claim(tx, fleet_id, limit=9) == []


async def test_a_removed_host_is_let_go_and_the_others_stay_on_the_line(site: Site) -> None:
    first, second = add_simulated(site, 2)
    _, identity = await enrolled_fleet(site)
    async with fleet_of(site, identity) as running:
        await all_up(site, 2)
        with site.database.write() as tx:
            tx.execute(update(host).where(host.c.id == first).values(live=None, state=str(HostState.REMOVED)))
            enrolment.revoke(tx, first)
        await until(lambda: len(running.fleet.uuids) == 1)
        site.request(second, "op", AttachPool(POOL))
        await site.answered("op")
    assert HostState.DISCONNECTED not in [state for host_id, state in site.heard.states[:2] if host_id == second]
    assert len([each for each, _ in site.heard.inventories if each == second]) == 1


async def test_a_host_removed_while_it_is_let_in_does_not_stay_on_the_line(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = add_simulated(site, 2)
    _, identity = await enrolled_fleet(site)
    admit = Arrivals._admit

    def admit_and_remove(arrivals: Arrivals, coming: Sequence[_Coming]) -> list[Admitted]:
        admitted = admit(arrivals, coming)
        if first in [host_id for who in admitted for host_id in who.hosts.values()]:
            # Told to the event loop before it can learn who was admitted.
            with site.database.write() as tx:
                tx.execute(update(host).where(host.c.id == first).values(live=None, state=str(HostState.REMOVED)))
                enrolment.revoke(tx, first)
        return admitted

    monkeypatch.setattr(Arrivals, "_admit", admit_and_remove)
    async with fleet_of(site, identity) as running:
        await until(lambda: site.state(second) is HostState.UP and len(running.fleet.uuids) == 1)
        site.request(second, "op", AttachPool(POOL))
        await site.answered("op")


async def test_a_deleted_fleet_is_turned_away_for_good_and_another_takes_its_hosts(site: Site) -> None:
    add_simulated(site, 5)
    fleet_id, identity = await enrolled_fleet(site, "one")
    _, other = await enrolled_fleet(site, "two")
    async with fleet_of(site, identity) as running:
        await all_up(site, 5)
        with site.database.write() as tx:
            fleets.revoke(tx, fleet_id)
        async with asyncio.timeout(20):
            died = (await asyncio.gather(running.task, return_exceptions=True))[0]
    assert type(died).__name__ == "TurnedAway"
    with site.database.write() as tx:
        assert fleets.claim(tx, fleet_id, limit=9) == []
    async with fleet_of(site, other) as second:
        await all_up(site, 5)
        assert len(second.fleet.uuids) == 5


async def test_an_agent_that_asks_for_hosts_without_being_a_fleet_is_turned_away(site: Site) -> None:

    _, identity = await site.enrolled()
    async with raw_line(site, identity) as line:
        await hello(line, identity.hosts()[0].uuid)
        await line.send(encode(Ask(5)))
        assert isinstance(await heard(line), GoAway)
