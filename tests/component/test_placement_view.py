"""The view of hosts follows the database whoever writes, and a refusal is believed only when the database agrees."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, text, update
from structlog.testing import capture_logs

from pileus.server.config import change, keys
from pileus.server.db import changes
from pileus.server.db.queries import capacity
from pileus.server.db.queries import placement as queries
from pileus.server.db.queries import storage_pool as pools
from pileus.server.db.tables.host import host, host_capacity, host_tag, storage_pool, storage_pool_host
from pileus.server.db.tables.place import cluster, pod
from pileus.server.db.tables.row_change import row_change
from pileus.server.db.transaction import Database, Tx
from pileus.server.placement import search, view
from pileus.server.placement.demand import Demand, DiskDemand, Place
from pileus.server.placement.facts import Cloud as Known
from pileus.server.placement.place import must_place, place
from pileus.server.placement.view import View
from pileus.server.reconcilers import row_changes
from pileus.testing import World
from pileus.testing.builders import GIB, Cloud
from pileus.testing.client import counted_statements


@pytest.fixture
def cloud(world: World) -> Cloud:
    made = world.cloud(hosts=4, cpus=4, memory=4 * GIB)
    with world.db.write() as tx:
        change(tx, keys.vm_allocation_algorithm, "firstfit", user_id=1)
    return made


@pytest.fixture
def other(world: World, tmp_path: Path) -> Iterator[Database]:
    """Another server of the farm, on the same database."""
    database = Database(world.db.url.render_as_string(hide_password=False), world.clock)
    yield database
    database.dispose()


def known(database: Database) -> Known:
    with database.read() as tx, view.of(tx).cloud(tx) as found:
        return found


def there(database: Database) -> Known:
    """What somebody who has never looked before sees."""
    with database.read() as tx, View().cloud(tx) as found:
        return found


def facts(found: Known) -> tuple[Any, ...]:
    zones = {key: (zone.hosts, zone.pools) for key, zone in found.zones.items() if zone.hosts or zone.pools}
    used = {key: ids for key, ids in found.pools_of_cluster.items() if ids}
    return found.hosts, found.pools, zones, used, found.closed_pods, found.closed_clusters


def demand(cloud: Cloud, **wishes: Any) -> Demand:
    return Demand(**{"name": "web", "zone_id": cloud.zone, "cpus": 1, "cpu_mhz": 1000, "ram_mib": 1024, **wishes})


def placed(database: Database, wanted: Demand, seed: str = "") -> Place | None:
    return database.run(lambda tx: place(tx, wanted, seed=seed))


HAPPENINGS = range(12)


def happens(world: World, tx: Tx, cloud: Cloud, dice: random.Random) -> None:
    """Something that a server may do to hosts and pools."""
    hosts = list(tx.execute(select(host.c.id).where(host.c.live == 1)).scalars())
    pool_ids = list(tx.execute(select(storage_pool.c.id)).scalars())
    host_id, pool_id = dice.choice(hosts), dice.choice(pool_ids)
    match dice.choice(HAPPENINGS):
        case 0:
            capacity.claim_host(tx, host_id, cpu_mhz=dice.randrange(2000), ram_mib=dice.randrange(1024))
        case 1:
            capacity.release_host(tx, host_id, cpu_mhz=dice.randrange(500), ram_mib=dice.randrange(256))
        case 2:
            capacity.claim_pool(tx, pool_id, dice.randrange(GIB))
        case 3:
            capacity.release_pool(tx, pool_id, dice.randrange(GIB))
        case 4:
            state = dice.choice(("Up", "Down", "Disconnected"))
            tx.execute(update(host).where(host.c.id == host_id).values(state=state))
        case 5:
            state = dice.choice(("Enabled", "Disabled"))
            tx.execute(update(dice.choice((pod, cluster))).values(allocation_state=state))
        case 6:
            tx.execute(delete(host_tag).where(host_tag.c.host_id == host_id))
            tx.execute(insert(host_tag), [{"host_id": host_id, "tag": tag} for tag in ("a", "b")])
        case 7:
            pools.mark_detached(tx, pool_id, host_id)
            pools.expect(tx, pool_id, host_id)
            pools.set_attached(tx, pool_id, host_id, attached=dice.random() < 0.7)
        case 8:
            pools.forget(tx, pool_id)
        case 9:
            gone = dice.random() < 0.2
            tx.execute(update(host).where(host.c.id == host_id).values(live=None if gone and len(hosts) > 2 else 1))
        case 10:
            tx.execute(update(storage_pool).where(storage_pool.c.id == pool_id).values(state="Maintenance"))
        case 11:
            tx.execute(update(host_capacity).values(ram_used_mib=host_capacity.c.ram_used_mib))


@pytest.mark.parametrize("seed", range(3))
def test_the_view_is_what_the_database_says_after_whatever_anybody_did(
    world: World, cloud: Cloud, other: Database, seed: int
) -> None:
    world.pool(cloud.cluster)
    dice = random.Random(seed)
    known(world.db)
    for _ in range(40):
        database = dice.choice((world.db, other))
        try:
            with database.write() as tx:
                for _ in range(dice.randrange(1, 4)):
                    happens(world, tx, cloud, dice)
                if dice.random() < 0.3:
                    place(tx, demand(cloud, ram_mib=256), seed=str(dice.random()))
                if dice.random() < 0.3:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        if dice.random() < 0.2:
            world.host(cloud.cluster)
        assert facts(known(world.db)) == facts(there(world.db))
        assert facts(known(other)) == facts(there(world.db))


def test_what_a_transaction_has_changed_is_seen_by_itself_and_forgotten_with_it(world: World, cloud: Cloud) -> None:
    known(world.db)
    with pytest.raises(ZeroDivisionError), world.db.write() as tx:
        tx.execute(update(host).where(host.c.id == cloud.hosts[0]).values(state="Down"))
        found = place(tx, demand(cloud))
        assert found is not None
        assert found.host_id == cloud.hosts[1]
        raise ZeroDivisionError

    assert facts(known(world.db)) == facts(there(world.db))
    again = placed(world.db, demand(cloud))
    assert again is not None
    assert again.host_id == cloud.hosts[0]


def test_a_reader_that_began_earlier_does_not_take_the_view_back(world: World, cloud: Cloud) -> None:
    known(world.db)
    with world.db.read() as early:
        early.all(select(host.c.id))
        placed(world.db, demand(cloud))
        with view.of(early).cloud(early):
            pass
        assert facts(known(world.db)) == facts(there(world.db))


def test_a_view_that_has_fallen_behind_a_trimmed_log_reads_everything(
    world: World, cloud: Cloud, other: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(other)
    for _ in range(3):
        placed(world.db, demand(cloud))
    monkeypatch.setattr(row_changes, "KEEP", 1)
    row_changes.run(world.db)
    with world.db.read() as tx:
        assert len(tx.all(select(row_change))) == 1
    placed(world.db, demand(cloud))

    assert facts(known(other)) == facts(there(world.db))


def test_a_heartbeat_is_no_change(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(host).where(host.c.id.in_(cloud.hosts)).values(heard_at=tx.now))
        tx.execute(update(host).where(host.c.id == 0).values(state="Down"))
        assert changes.pending(tx.connection) == set()


def test_an_entry_that_appears_behind_a_later_one_is_not_missed(world: World, cloud: Cloud) -> None:
    """As on databases with several writers: numbers are given before commits, and commits come in any order."""
    known(world.db)
    with world.db.write() as tx:
        last = queries.newest_change(tx)
        tx.execute(insert(row_change).values(id=last + 2, subject=changes.POOL, row_id=cloud.pool))
    known(world.db)
    with world.db.write() as tx:
        tx.execute(text(f"UPDATE host SET state = 'Down' WHERE id = {cloud.hosts[0]}"))
        tx.execute(insert(row_change).values(id=last + 1, subject=changes.HOST, row_id=cloud.hosts[0]))

    assert known(world.db).hosts[cloud.hosts[0]].state == "Down"


def test_a_refusal_is_not_believed_when_the_database_knows_better(world: World, cloud: Cloud) -> None:
    full = demand(cloud, cpus=4, cpu_mhz=2000)
    for _ in cloud.hosts:
        assert placed(world.db, full) is not None
    assert placed(world.db, full) is None
    with world.db.write() as tx:
        # By hand: the log does not tell.
        tx.execute(text(f"UPDATE host_capacity SET cpu_used_mhz = 0 WHERE host_id = {cloud.hosts[2]}"))

    with capture_logs() as logs:
        found = placed(world.db, full)

    assert found is not None
    assert found.host_id == cloud.hosts[2]
    assert any("looking again" in entry["event"] for entry in logs)


def test_a_host_that_is_down_is_not_claimed_though_the_view_has_it_up(world: World, cloud: Cloud) -> None:
    known(world.db)
    with world.db.write() as tx:
        tx.execute(text(f"UPDATE host SET state = 'Down' WHERE id = {cloud.hosts[0]}"))

    found = placed(world.db, demand(cloud))

    assert found is not None
    assert found.host_id == cloud.hosts[1]


@pytest.mark.parametrize("few", [search.FEW, 0])
def test_a_lost_claim_falls_to_the_next_candidate(
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(search, "FEW", few)
    near, far = cloud.pool, world.pool(cloud.cluster)
    known(world.db)
    with world.db.write() as tx:
        tx.execute(text(f"UPDATE host_capacity SET ram_used_mib = 4000 WHERE host_id = {cloud.hosts[0]}"))
        tx.execute(text(f"UPDATE storage_pool SET allocated_bytes = allocatable_bytes WHERE id = {near}"))

    found = placed(world.db, demand(cloud, disks=(DiskDemand(1, GIB), DiskDemand(2, GIB))))

    assert found is not None
    assert (found.host_id, found.pools) == (cloud.hosts[1], {1: far, 2: far})
    with world.db.read() as tx:
        room = select(host_capacity).where(host_capacity.c.host_id.in_(cloud.hosts))
        claimed = tx.all(room.order_by(host_capacity.c.host_id))
        assert [row["ram_used_mib"] for row in claimed] == [4000, 1024, 0, 0]
        assert tx.scalar(select(storage_pool.c.allocated_bytes).where(storage_pool.c.id == far)) == 2 * GIB


def test_a_decision_reads_only_what_has_changed(world: World, cloud: Cloud) -> None:
    placed(world.db, demand(cloud))
    with counted_statements(world.db) as seen:
        assert placed(world.db, demand(cloud)) is not None
    reads = [statement for statement in seen if "FROM host" in statement and "SELECT" in statement.split()[0]]

    assert len(seen) <= 12
    assert all("IN (" in statement for statement in reads), reads


def test_in_columns_a_deploy_that_fits_nowhere_still_names_each_host(
    world: World, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FEW", 0)
    with pytest.raises(Exception, match="not enough memory") as error, world.db.write() as tx:
        must_place(tx, demand(cloud, ram_mib=9000))

    assert str(error.value).count("4096 of 4096 MiB free, 9000 needed") == len(cloud.hosts)


@pytest.mark.parametrize("statement", ["in", "many", "foreign", "text"])
def test_statements_are_noted_by_the_rows_they_name(world: World, cloud: Cloud, statement: str) -> None:
    with world.db.write() as tx:
        match statement:
            case "in":
                tx.execute(update(host).where(host.c.id.in_(cloud.hosts[:2])).values(state="Down"))
                expected = {(changes.HOST, host_id) for host_id in cloud.hosts[:2]}
            case "many":
                tx.execute(update(host).values(state="Down"))
                expected = {changes.EVERYTHING}
            case "foreign":
                tx.execute(delete(storage_pool_host).where(storage_pool_host.c.pool_id == cloud.pool))
                expected = {(changes.USES, cloud.pool)}
            case _:
                tx.execute(text("UPDATE host SET state = 'Down'"))
                expected = set()
        assert changes.pending(tx.connection) == expected
