"""What goes wrong in a fleet really does, and everything is well again afterwards; time is moved by hand."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fleet_setup import MovedClock, RunningFleet, add_simulated, all_up, enrolled_fleet, fleet_of
from hosts_setup import Site, site_in, until
from places import group, refused
from places import host as host_added
from sqlalchemy import select, update

from pileus.agent.backends.simulator.backend import Pace
from pileus.agent.backends.simulator.fleet import SimulatedFleet
from pileus.agent.journal import Journal
from pileus.server.db.tables.host import host
from pileus.server.db.transaction import Database
from pileus.server.domain.host import HostState
from pileus.server.hosts import fleets
from pileus.testing.client import Client
from pileus.wire.messages import VmChange, WantedHost
from pileus.wire.operations import AttachPool, PoolFacts, Reason, StartVm, StopVm, VmFacts, VmSpec
from pileus.wire.orders import Mishap, Orders
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
        yield site


@dataclass
class Scene:
    """A running fleet of two hosts and its clock."""

    site: Site
    running: RunningFleet
    clock: MovedClock
    ids: list[int]
    uuids: list[str]

    @property
    def fleet(self) -> SimulatedFleet:
        return self.running.fleet

    def behave(self, **settings: str) -> None:
        self.fleet.take(Orders({name.replace("_", "."): text for name, text in settings.items()}))

    def introductions(self, number: int) -> int:
        return [known for known, _ in self.site.heard.inventories].count(self.ids[number])

    async def start(self, name: str = "start") -> None:
        self.site.request(self.ids[0], name, StartVm(VM))
        assert isinstance((await self.site.answered(name)).result, VmFacts)

    async def passed(self, true: Any, *, seconds: float = 1.0) -> None:
        """Let time go on until something is so."""
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(true):
                await self.clock.advance(seconds)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def scene(site: Site, *, count: int = 2, **options: Any) -> AsyncIterator[Scene]:
    ids = add_simulated(site, count)
    _, identity = await enrolled_fleet(site)
    clock = MovedClock()
    async with fleet_of(site, identity, clock=clock, **options) as running:
        await all_up(site, count)
        with site.database.read() as tx:
            uuids = [tx.scalar(select(host.c.uuid).where(host.c.id == each)) for each in ids]
        yield Scene(site, running, clock, ids, uuids)


async def test_a_host_that_loses_its_power_goes_down_and_comes_back_empty(site: Site) -> None:
    site.settings = replace(site.settings, down_after_seconds=0.0)
    async with scene(site) as now:
        await now.start()
        assert now.fleet.mishaps.befall(Mishap.DIE, [now.uuids[0]], seconds=60) == 1
        assert now.fleet.mishaps.befall(Mishap.DIE, [now.uuids[0]], seconds=60) == 0
        site.request(now.ids[0], "again", StartVm(VM))
        listener = site.listener
        assert listener is not None
        (line,) = listener.delivery.lines
        await until(lambda: now.ids[0] in line.pulse.silent)
        line.pulse.silent[now.ids[0]] -= 10_000
        listener._settings = site.settings
        await listener.sweep()
        assert site.state(now.ids[0]) is HostState.DOWN
        assert site.state(now.ids[1]) is HostState.UP
        assert site.operation("again").pending
        await now.clock.advance(61)
        assert isinstance((await site.answered("again")).result, VmFacts)
        await until(lambda: site.state(now.ids[0]) is HostState.UP)
        assert [len(intro.holds) for known, intro in site.heard.inventories if known == now.ids[0]] == [0, 0]
        assert now.introductions(1) == 1


async def test_a_host_that_nobody_reaches_works_on_and_tells_when_it_is_back(site: Site) -> None:
    async with scene(site, latency="constant:5") as now:
        site.request(now.ids[0], "start", StartVm(VM))
        await now.passed(lambda: not site.operation("start").pending)
        site.request(now.ids[0], "stop", StopVm(VM.name, VM.uuid, VM.epoch, forced=True))
        await until(lambda: "stop" in delivered(now))
        now.fleet.mishaps.befall(Mishap.CUT, [now.uuids[0]], seconds=60)
        await now.passed(lambda: not list(now.fleet.world.guests()))
        # It acted, and nobody hears of it.
        assert site.operation("stop").pending
        await now.clock.advance(61)
        await now.passed(lambda: not site.operation("stop").pending)
        assert now.introductions(0) == 2


def delivered(now: Scene) -> set[str]:
    assert now.site.listener is not None
    return {each for line in now.site.listener.delivery.lines for each in line.delivered}


async def test_what_a_guest_does_while_nobody_reaches_its_host_is_told_by_the_inventory(site: Site) -> None:
    async with scene(site) as now:
        await now.start()
        now.fleet.mishaps.befall(Mishap.CUT, [now.uuids[0]], seconds=60)
        backend = now.fleet.backend_of(now.uuids[0])
        assert backend is not None
        backend.crash_guest(VM.name)
        await now.clock.advance(61)
        await until(lambda: now.introductions(0) == 2)
        assert [seen.running for seen in site.heard.inventories[-1][1].holds] == [False]
        assert site.heard.happened == []


async def test_what_needs_storage_is_refused_while_it_is_out_and_only_then(site: Site) -> None:
    async with scene(site) as now:
        now.fleet.mishaps.befall(Mishap.STORAGE, now.uuids[:1], seconds=30)
        for name, host_id in (("out", now.ids[0]), ("well", now.ids[1])):
            site.request(host_id, name, AttachPool(POOL))
        refusal = (await site.answered("out")).refusal
        assert refusal is not None
        assert refusal.reason is Reason.UNREACHABLE
        assert isinstance((await site.answered("well")).result, PoolFacts)
        await now.clock.advance(31)
        site.request(now.ids[0], "after", AttachPool(POOL))
        assert isinstance((await site.answered("after")).result, PoolFacts)


@pytest.mark.parametrize(("what", "change"), [(Mishap.CRASH, VmChange.CRASHED), (Mishap.SHUTDOWN, VmChange.STOPPED)])
async def test_guests_end_by_themselves(site: Site, what: Mishap, change: VmChange) -> None:
    async with scene(site) as now:
        assert now.fleet.mishaps.befall(what, now.uuids, seconds=0) == 0
        await now.start()
        assert now.fleet.mishaps.befall(what, now.uuids, seconds=0) == 1
        await until(lambda: bool(site.heard.happened))
        assert [message.change for _, message in site.heard.happened] == [change]


async def test_operations_take_as_long_as_is_said_of_their_kind_and_are_refused_as_often(site: Site) -> None:
    async with scene(
        site, **{"latency": "10", "latency.StartVm": "100", "refuse.StopVm": "1", "reason": "no-room"}
    ) as now:
        site.request(now.ids[0], "attach", AttachPool(POOL), queue="a")
        site.request(now.ids[0], "start", StartVm(VM), queue="b")
        site.request(now.ids[0], "stop", StopVm("other", "u", 1, forced=True), queue="c")
        await until(lambda: len(now.clock._asleep) >= 4)
        await now.clock.advance(9)
        assert site.operation("attach").pending
        await now.clock.advance(2)
        assert isinstance((await site.answered("attach")).result, PoolFacts)
        refusal = (await site.answered("stop")).refusal
        assert refusal is not None
        assert refusal.reason is Reason.NO_ROOM
        assert site.operation("start").pending
        await now.clock.advance(100)
        assert isinstance((await site.answered("start")).result, VmFacts)


async def test_a_lost_answer_is_given_again_on_the_host_s_next_connection(site: Site) -> None:
    async with scene(site, lose="1") as now:
        site.request(now.ids[0], "start", StartVm(VM))
        await until(lambda: now.fleet.mishaps.happened["lose"] == 1)
        assert site.operation("start").pending
        now.behave(lose="0")
        await now.passed(lambda: not site.operation("start").pending)
        assert now.introductions(0) == 2
        assert len(list(now.fleet.world.guests())) == 1


async def test_an_answer_that_comes_late_or_twice_counts_once(site: Site) -> None:
    async with scene(site, late="1:constant:40", twice="1") as now:
        site.request(now.ids[0], "start", StartVm(VM))
        await until(lambda: now.fleet.mishaps.happened["late"] == 1)
        await now.clock.advance(39)
        assert site.operation("start").pending
        await now.clock.advance(2)
        await site.answered("start")
        site.request(now.ids[0], "last", AttachPool(POOL))
        await now.passed(lambda: not site.operation("last").pending)
        assert now.fleet.mishaps.happened["twice"] == 2
        assert site.heard.order == ["start", "last"]


async def test_what_was_under_way_when_the_host_died_is_done_when_it_is_back(site: Site) -> None:
    async with scene(site, latency="20") as now:
        site.request(now.ids[0], "start", StartVm(VM))
        await until(lambda: len(now.clock._asleep) >= 2)
        now.fleet.mishaps.befall(Mishap.DIE, now.uuids[:1], seconds=60)
        await now.clock.advance(30)
        assert not list(now.fleet.world.guests())
        assert site.operation("start").pending
        await now.passed(lambda: not site.operation("start").pending, seconds=10)
        assert isinstance(site.operation("start").result, VmFacts)


async def test_a_line_made_anew_leaves_out_what_is_away_until_it_is_back(site: Site) -> None:
    async with scene(site) as now:
        now.fleet.mishaps.befall(Mishap.CUT, now.uuids[:1], seconds=60)
        port = site.endpoint.port
        await site.stop()
        site.settings = replace(site.settings, port=port)
        await site.start()
        await until(lambda: now.introductions(1) == 2)
        assert now.introductions(0) == 1
        await now.clock.advance(61)
        # Once as one that is back, and perhaps once more as one that the server offers because the line lacks it.
        await until(lambda: now.introductions(0) >= 2)
        await all_up(site, 2)


async def test_after_a_storm_everything_is_well(site: Site) -> None:
    storm = {"die": "900:uniform:1:20", "cut": "900:uniform:1:20", "storage": "600:constant:5", "crash": "600",
             "latency": "lognormal:0.5:4", "refuse": "0.05", "late": "0.1:uniform:1:9", "lose": "0.1",
             "twice": "0.2", "seed": "storm"}  # fmt: skip
    async with scene(site, count=20, **storm) as now:
        for turn in range(15):
            for number, host_id in enumerate(now.ids):
                guest = replace_vm(f"v-{number}", turn + 1)
                site.request(host_id, f"{turn}-{number}", StartVm(guest), queue=guest.name)
            await now.clock.advance(10)
            await asyncio.sleep(0.02)
        happened = dict(now.fleet.mishaps.happened)
        assert all(happened.get(what, 0) > 0 for what in ("die", "cut", "storage", "crash", "refuse", "lose", "twice"))
        now.behave(die="0", cut="0", storage="0", crash="0", lose="0", refuse="0", late="0")

        def answered() -> bool:
            return not any(
                site.operation(f"{turn}-{number}").pending for turn in range(15) for number in range(len(now.ids))
            )

        await now.passed(answered, seconds=10)
        await all_up(site, 20)
        now.fleet.world.assert_sound()
        assert HostState.DOWN not in [state for _, state in site.heard.states]


def replace_vm(name: str, epoch: int) -> VmSpec:
    return VmSpec(name, f"uuid-{name}", epoch, 1, 500, 128, (), (), "")


# ---- rates and seeds, without a server


def fleet_with(settings: Mapping[str, str], *, count: int = 100, seed: str = "1") -> SimulatedFleet:
    journal = Journal.in_memory()
    made = SimulatedFleet(journal, settings=settings, clock=MovedClock(), pace=Pace(seed=seed))
    made.make([WantedHost(f"u{number}", f"sim-{number}") for number in range(count)])
    return made


def test_hosts_die_as_often_as_their_rate_says_and_the_same_ones_under_the_same_seed() -> None:
    def story(seed: str) -> tuple[int, tuple[str, ...]]:
        made = fleet_with({"die": "2:constant:0"}, seed=seed)
        for _ in range(3600):
            made.mishaps.tick(1.0)
        return made.mishaps.happened["die"], tuple(made.mishaps.away)

    first, again, other = story("1"), story("1"), story("2")
    assert 140 < first[0] < 260  # 200 are expected; four standard deviations are 57.
    assert first == again
    assert first != other


async def test_a_host_added_with_settings_of_its_own_keeps_them_whatever_the_fleet_does(site: Site) -> None:
    made = fleet_with({"refuse": "0.5"}, count=1)
    made.make([WantedHost("own", "own", "refuse=0.9&latency.StartVm=constant:7"), WantedHost("bad", "bad", "no=1")])
    made.take(Orders({"refuse": "0.1", "lose": "0.2"}))
    assert made.behaviour_of("u0").refuse == 0.1
    own = made.behaviour_of("own")
    assert (own.refuse, own.lose, own.latency_of("StartVm").at(0.5)) == (0.9, 0.2, 7)
    assert made.behaviour_of("bad").refuse == 0.1


async def test_orders_dropped_beside_a_running_fleet_happen_once_and_bad_ones_are_put_aside(
    site: Site, tmp_path: Path
) -> None:
    desk = tmp_path / "orders"
    desk.mkdir()
    async with scene(site, count=4, orders=str(desk)) as now:
        (desk / "1.toml").write_text('[[mishap]]\nwhat = "cut"\nhosts = "sim-[12]"\nseconds = 600\nafter = 5\n')
        (desk / "2.toml").write_text('[[mishap]]\nwhat = "explode"\n')
        await now.passed(lambda: not (desk / "1.toml").exists())
        await now.clock.advance(6)
        assert sorted(now.fleet.silent()) == sorted(now.uuids[1:3])
        assert [path.name for path in desk.iterdir()] == ["2.bad"]
        await now.clock.advance(700)
        assert now.fleet.silent() == ()


# ---- addHost


def test_the_url_of_a_simulated_host_says_how_it_behaves(db: Database) -> None:
    client = Client(db)
    here, _, inside = group(client)
    made = host_added(client, here, inside, "h1", url="http://h1?latency.StartVm=uniform:1:2&die=0.5")
    assert made["name"] == "h1"
    with db.write() as tx:
        tx.execute(update(host).values(fleet_id=1))
        ((_, wanted),) = fleets.owned(tx, 1, after=0, limit=9)
    assert wanted == WantedHost(made["id"], "h1", "latency.StartVm=uniform:1:2&die=0.5")
    for query in ("die=often", "die", "sleep=1", "latency=uniform:2:1", "refuse.Nothing=1", "=", "refuse=0.1&" * 400):
        with refused(431, "url"):
            host_added(client, here, inside, "h2", url=f"http://h2?{query}")
    assert client.call("listHosts")["count"] == 1
