"""Clouds that are filled in bulk hold together as if they had been lived in."""

from sqlalchemy import func, select

from pileus.server.db.tables.vm import vm
from pileus.testing.client import Client
from pileus.testing.fill import Shape, fill
from pileus.testing.left import assert_quiet, capacity_amiss, counts_amiss, orphans_amiss
from pileus.testing.world import World

SHAPE = Shape(domains=3, accounts=7, networks=5, hosts=60, vms=40, removed_vms=30, volumes=70, events=10)


def test_every_sum_of_a_filled_cloud_holds(world: World) -> None:
    fill(world.db, world.cloud(), SHAPE)
    with world.db.read() as tx:
        assert [*capacity_amiss(tx), *counts_amiss(tx), *orphans_amiss(tx)] == []
        assert_quiet(tx)
        assert tx.scalar(select(func.count()).select_from(vm)) == SHAPE.vms + SHAPE.removed_vms
    client = Client(world.db)
    assert client.call("listVirtualMachines", listall=True)["count"] == SHAPE.vms
    assert client.call("listVolumes", listall=True)["count"] == SHAPE.volumes
    # Keys go on behind those that were given.
    assert world.account("newcomer").account_id > SHAPE.accounts


def test_the_same_seed_makes_the_same_cloud() -> None:
    told = []
    for _ in range(2):
        with World.open() as world:
            fill(world.db, world.cloud(), SHAPE, seed=5)
            with world.db.read() as tx:
                told.append(
                    [tuple(row) for row in tx.execute(select(vm.c.uuid, vm.c.state, vm.c.host_id, vm.c.created_at))]
                )
    assert told[0] == told[1]
