"""Hosts attach and detach primary storage, whatever goes wrong."""

from dataclasses import dataclass

import pytest
from sqlalchemy import delete, insert, select, update

from pileus.server.db.tables.host import host, storage_pool, storage_pool_host
from pileus.server.db.tables.job import job
from pileus.server.db.tables.template import template_on_pool
from pileus.server.domain.caller import root_caller
from pileus.server.domain.ids import Host, Id, StoragePool
from pileus.server.domain.storage import CopyState, PoolState
from pileus.server.jobs.submit import JobRef
from pileus.server.services import storage_pool as service
from pileus.testing import World
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness


@dataclass
class Case:
    """A pool, and the hosts of its cluster."""

    pool: Id[StoragePool]
    hosts: tuple[Id[Host], ...]


def fresh(world: World) -> Case:
    """A host and a pool that it does not use yet."""
    inside = world.cluster(world.pod(world.zone()))
    case = Case(world.pool(inside), (world.host(inside),))
    with world.db.write() as tx:
        tx.execute(delete(storage_pool_host))
        tx.execute(update(storage_pool).values(state=str(PoolState.INITIAL), capacity_bytes=0))
    return case


def used(world: World) -> Case:
    """A pool that two hosts use, with two copies of templates on it."""
    cloud = world.cloud(hosts=2)
    templates = {"one": cloud.template, "two": world.template(cloud.zone)}
    uuid = world.uuid(storage_pool, cloud.pool)
    with world.db.write() as tx:
        for name, template in templates.items():
            tx.execute(
                insert(template_on_pool).values(
                    template_id=template,
                    pool_id=cloud.pool,
                    state=str(CopyState.READY),
                    name=name,
                    used_at=tx.now,
                )
            )
    for each in cloud.hosts:
        world.hosts.backend(world.uuid(host, each)).host.attached.add(uuid)
    pool = world.hosts.world.pool(uuid)
    store = world.stores[cloud.storage]
    pool.templates |= dict(zip(templates, store.images.values(), strict=True))
    return Case(cloud.pool, cloud.hosts)


def attach(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        return service.attach(tx, case.pool, case.hosts[0])


def remove(world: World, case: Case) -> JobRef:
    with world.db.write() as tx:
        return service.delete(tx, root_caller(), case.pool)


def attached(world: World, case: Case) -> list[int]:
    """The hosts that use the pool, as they know it themselves."""
    uuid = world.uuid(storage_pool, case.pool)
    return [each for each in case.hosts if uuid in world.hosts.backend(world.uuid(host, each)).host.attached]


def is_up(world: World, case: Case) -> None:
    assert attached(world, case) == list(case.hosts)
    with world.db.read() as tx:
        row = tx.one(select(storage_pool))
        use = tx.one(select(storage_pool_host))
    assert row is not None and use is not None
    assert (row["state"], row["capacity_bytes"] > 0, use["attached"]) == ("Up", True, 1)


def is_forgotten(world: World, case: Case) -> None:
    with world.db.read() as tx:
        assert tx.all(select(storage_pool_host)) == []
        assert tx.all(select(template_on_pool)) == []
        row = tx.one(select(storage_pool))
    assert row is not None
    assert (row["live"], row["state"]) == (None, "Removed")


ATTACH = Soundness[Case]("storage.attach", prepare=fresh, submit=attach, holds=is_up)
DETACH = Soundness[Case]("storage.detach", prepare=used, submit=remove, holds=is_forgotten, restores=False)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_an_attach_is_sound(scenario: Scenario) -> None:
    ATTACH.check(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_removal_of_a_pool_is_sound(scenario: Scenario) -> None:
    DETACH.check(scenario)


def test_every_host_lets_go_of_a_removed_pool_and_no_copy_is_left(world: World) -> None:
    case = used(world)
    world.result(remove(world, case))
    assert attached(world, case) == []
    assert world.hosts.world.pool(world.uuid(storage_pool, case.pool)).templates == {}


def test_the_reconciler_ends_a_removal_that_failed(world: World) -> None:
    case = used(world)
    ref = remove(world, case)
    with world.db.write() as tx:
        tx.execute(update(job).where(job.c.id == ref.id).values(deadline_at=tx.now - 1))
    world.settle()
    assert world.job(ref)["phase"] == "failed"
    assert attached(world, case) == list(case.hosts)
    world.reconcile("storage-attach")
    world.settle()
    assert attached(world, case) == []
    is_forgotten(world, case)
    world.assert_nothing_left()
