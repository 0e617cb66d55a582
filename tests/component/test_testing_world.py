"""The world finds what it is there to find: leaks, wrong sums, unfinished business, network calls in transactions."""

import socket
from collections.abc import Callable

import pytest
from sqlalchemy import insert, update

from pileus.agent.backends.simulator.world import Guest, Image
from pileus.server.db.tables.account import resource_count
from pileus.server.db.tables.host import host, host_capacity, host_operation, storage_pool
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import public_ip
from pileus.server.db.tables.place import zone_vnet
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import Owner, submit
from pileus.testing import World
from pileus.testing.builders import Cloud
from pileus.testing.guard import NetworkInTransaction
from pileus.wire.operations import VmSpec
from pileus.wire.places import Isolation, NetworkRef, Traffic


def forgotten_guest(world: World, cloud: Cloud) -> None:
    spec = VmSpec("i-2-3-VM", "u", 1, 1, 500, 128, (), (), "secret")
    world.hosts.world.hosts[world.uuid(host, cloud.hosts[0])].guests["i-2-3-VM"] = Guest(spec, running=True)


def forgotten_volume(world: World, cloud: Cloud) -> None:
    world.hosts.world.pool(world.uuid(storage_pool, cloud.pool)).volumes["v"] = Image(1, 1)


def forgotten_bridge(world: World, cloud: Cloud) -> None:
    network = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 7)
    world.hosts.world.hosts[world.uuid(host, cloud.hosts[0])].bridges.add(network)


def lost_image(world: World, cloud: Cloud) -> None:
    world.stores[cloud.storage].images.clear()


def claimed_capacity(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(host_capacity).where(host_capacity.c.host_id == cloud.hosts[0]).values(ram_used_mib=1))


def claimed_space(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(storage_pool).values(allocated_bytes=1))


def wrong_count(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(resource_count).where(resource_count.c.owner == "account").values(used=7))


def taken_address(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(public_ip).where(public_ip.c.address == "198.51.100.10").values(state="Allocated"))


def taken_vnet(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        tx.execute(update(zone_vnet).where(zone_vnet.c.vnet == 1000).values(network_id=99))


def pending_operation(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        values = {"operation_id": "o", "host_id": cloud.hosts[0], "queue": "q", "kind": "StopVm", "body": "{}"}
        tx.execute(insert(host_operation).values(created_at=tx.now, **values))


def open_job(world: World, cloud: Cloud) -> None:
    with world.db.write() as tx:
        ref = submit(tx, Plan("nothing", ()), Owner(2, 1, 2), command="x")
        tx.execute(update(job).where(job.c.id == ref.id).values(phase="stuck", wake_at=None))


@pytest.mark.parametrize(
    "leak",
    [
        forgotten_guest,
        forgotten_volume,
        forgotten_bridge,
        lost_image,
        claimed_capacity,
        claimed_space,
        wrong_count,
        taken_address,
        taken_vnet,
        pending_operation,
        open_job,
    ],
)
def test_each_kind_of_leak_is_found(world: World, leak: Callable[[World, Cloud], None]) -> None:
    cloud = world.cloud()
    world.account()
    world.assert_nothing_left(world.left())
    leak(world, cloud)
    with pytest.raises(AssertionError):
        world.assert_nothing_left()


def test_what_came_since_is_named(world: World) -> None:
    cloud = world.cloud()
    before = world.left()
    forgotten_volume(world, cloud)
    with pytest.raises(AssertionError, match=r"volumes: more \['v'\], less \[\]"):
        world.left().assert_same(before)


def test_a_copied_world_goes_its_own_way(world: World) -> None:
    cloud = world.cloud()
    with world.copied() as other:
        other.assert_nothing_left(world.left())
        forgotten_volume(other, cloud)
        other.account()
        other.clock.advance(5)
        assert other.left() != world.left()
    world.assert_nothing_left()


def test_connecting_inside_a_transaction_trips(world: World) -> None:
    with world.db.read(), pytest.raises(NetworkInTransaction), socket.socket() as client:
        client.connect(("127.0.0.1", 9))
    with world.db.write(), pytest.raises(NetworkInTransaction):
        socket.create_connection(("127.0.0.1", 9))
    with world.db.write(), pytest.raises(NetworkInTransaction):
        socket.getaddrinfo("localhost", 80)


def test_connecting_outside_of_transactions_is_let_through(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
