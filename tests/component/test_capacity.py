"""Claims are the sum of what they stand for, and drift is corrected."""

import pytest
from sqlalchemy import select, update
from vm_setup import deployed

from pileus.server.db.queries import capacity
from pileus.server.db.tables.host import host_capacity, storage_pool
from pileus.server.domain.caller import Caller
from pileus.testing import World
from pileus.testing.builders import GIB, Cloud


@pytest.fixture
def cloud(world: World) -> Cloud:
    return world.cloud(hosts=1, cpus=2, memory=GIB)


@pytest.fixture
def alice(world: World) -> Caller:
    return world.account("alice")


def test_a_host_gives_no_more_than_it_has(world: World, cloud: Cloud) -> None:
    host_id = cloud.hosts[0]

    with world.db.write() as tx:
        assert capacity.claim_host(tx, host_id, cpu_mhz=4000, ram_mib=1024)
        assert not capacity.claim_host(tx, host_id, cpu_mhz=1, ram_mib=0)
        assert not capacity.claim_host(tx, host_id, cpu_mhz=0, ram_mib=1)
        capacity.release_host(tx, host_id, cpu_mhz=4000, ram_mib=1024)
        assert capacity.claim_host(tx, host_id, cpu_mhz=1, ram_mib=1)


def test_a_pool_gives_no_more_than_it_has_and_nothing_when_it_is_not_up(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(storage_pool).values(allocatable_bytes=10))
        assert capacity.claim_pool(tx, cloud.pool, 10)
        assert not capacity.claim_pool(tx, cloud.pool, 1)
        capacity.release_pool(tx, cloud.pool, 10)
        tx.execute(update(storage_pool).values(state="Maintenance"))
        assert not capacity.claim_pool(tx, cloud.pool, 1)


def test_what_was_never_claimed_is_not_given_back(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        capacity.release_host(tx, cloud.hosts[0], cpu_mhz=1, ram_mib=1)
        capacity.release_pool(tx, cloud.pool, 1)

        row = tx.one(select(host_capacity).where(host_capacity.c.host_id == cloud.hosts[0]))
        assert row is not None
        assert (row["cpu_used_mhz"], row["ram_used_mib"]) == (0, 0)
        assert tx.scalar(select(storage_pool.c.allocated_bytes)) == 0


def test_drift_is_corrected_from_lives_and_volumes(world: World, cloud: Cloud, alice: Caller) -> None:
    deployed(world, alice, cloud)
    before = world.left()
    with world.db.write() as tx:
        tx.execute(update(host_capacity).values(cpu_used_mhz=7, ram_used_mib=0))
        tx.execute(update(storage_pool).values(allocated_bytes=3))

    world.reconcile("capacity")

    world.assert_nothing_left(before)


def test_what_was_wrong_is_told_once(world: World, cloud: Cloud, alice: Caller) -> None:
    deployed(world, alice, cloud)
    with world.db.write() as tx:
        assert capacity.recount_hosts(tx) == []
        assert capacity.recount_pools(tx) == []
        tx.execute(update(storage_pool).values(allocated_bytes=3))
        (drift,) = capacity.recount_pools(tx)
        assert (drift.subject, drift.stood) == (f"pool:{cloud.pool}", (3,))
        assert capacity.recount_pools(tx) == []
