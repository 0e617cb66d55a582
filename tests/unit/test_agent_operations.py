"""Operations become atomics by one pure function."""

import pytest

from pileus.agent import operations as ops
from pileus.wire.operations import (
    AnyOperation,
    AttachPool,
    ConfigureRouter,
    CreateVolume,
    DeleteImage,
    DetachPool,
    RebootVm,
    RouterSpec,
    StartRouter,
    StartVm,
    StopRouter,
    StopVm,
    VmSpec,
)
from pileus.wire.places import DiskSpec, Isolation, NetworkRef, NicSpec, PoolKind, PoolRef, Traffic
from pileus.wire.router import RouterConfig

POOL = PoolRef("p1", PoolKind.FILESYSTEM, "/pool")
OTHER_POOL = PoolRef("p2", PoolKind.FILESYSTEM, "/other")
NET = NetworkRef(Traffic.GUEST, Isolation.VXLAN, 7)
PUBLIC = NetworkRef(Traffic.PUBLIC, Isolation.UNTAGGED, 0)
CONFIG = RouterConfig("n1", 1, "10.1.1.1", 24, "cloud.internal")


def nic(network: NetworkRef, device_id: int = 0) -> NicSpec:
    return NicSpec(f"02:00:00:00:00:0{device_id}", "10.1.1.2", 24, network, device_id)


VM = VmSpec(
    "i-2-3-VM",
    "u3",
    4,
    cpus=1,
    cpu_mhz=500,
    ram_mib=128,
    disks=(DiskSpec(POOL, "root", 0), DiskSpec(OTHER_POOL, "data", 1), DiskSpec(POOL, "more", 2)),
    nics=(nic(NET), nic(PUBLIC, 1), nic(NET, 2)),
    vnc_password="secret",
)
ROUTER = RouterSpec("r-9-VM", "u9", 2, (nic(NET), nic(PUBLIC, 1)))
LIFE = ops.Life("i-2-3-VM", "u3", 4)
ROUTER_LIFE = ops.Life("r-9-VM", "u9", 2, router=True)


def test_a_start_claims_the_life_before_it_touches_anything_and_attaches_each_thing_once() -> None:
    assert ops.expand(StartVm(VM)) == (
        ops.ClaimLife(LIFE),
        ops.Attach(POOL),
        ops.Attach(OTHER_POOL),
        ops.Plug(LIFE, (NET, PUBLIC)),
        ops.StartDomain(VM),
    )


def test_a_graceful_stop_fences_first_and_unplugs_last() -> None:
    assert ops.expand(StopVm("i-2-3-VM", "u3", 4, grace_seconds=30)) == (
        ops.EndLife(LIFE),
        ops.NoteNetworks(LIFE),
        ops.ShutDown("i-2-3-VM", 30),
        ops.RemoveLife(LIFE),
        ops.UnplugNoted(LIFE),
    )


def test_a_forced_stop_asks_nobody() -> None:
    atomics = ops.expand(StopVm("i-2-3-VM", "u3", 4, forced=True))
    assert not any(isinstance(atomic, ops.ShutDown) for atomic in atomics)
    assert ops.RemoveLife(LIFE) in atomics


def test_a_reboot_prepares_everything_that_may_refuse_before_the_guest_is_stopped() -> None:
    kinds = [type(atomic) for atomic in ops.expand(RebootVm(VM))]
    assert kinds == [
        ops.ClaimLife,
        ops.Attach,
        ops.Attach,
        ops.Plug,
        ops.ShutDown,
        ops.RemoveLife,
        ops.StartDomain,
    ]


def test_a_router_is_started_and_stopped_like_a_guest_but_as_a_router() -> None:
    assert ops.expand(StartRouter(ROUTER, CONFIG)) == (
        ops.ClaimLife(ROUTER_LIFE),
        ops.Plug(ROUTER_LIFE, (NET, PUBLIC)),
        ops.RunRouter(ROUTER, CONFIG),
    )
    assert ops.expand(StopRouter("r-9-VM", "u9", 2)) == (
        ops.EndLife(ROUTER_LIFE),
        ops.NoteNetworks(ROUTER_LIFE),
        ops.RemoveLife(ROUTER_LIFE),
        ops.UnplugNoted(ROUTER_LIFE),
    )
    assert ops.expand(ConfigureRouter("r-9-VM", 2, CONFIG)) == (
        ops.RequireLife("r-9-VM", 2),
        ops.Configure("r-9-VM", CONFIG),
    )


def test_work_in_a_pool_attaches_the_pool_first() -> None:
    order = CreateVolume(POOL, "v", 1024)
    assert ops.expand(order) == (ops.Attach(POOL), ops.Simple(order))
    assert ops.expand(AttachPool(POOL)) == (ops.Attach(POOL),)
    assert ops.expand(DetachPool(POOL)) == (ops.Simple(DetachPool(POOL)),)


@pytest.mark.parametrize("operation", [StartVm(VM), RebootVm(VM)])
def test_the_undo_of_a_start_removes_the_life_and_its_bridges(operation: AnyOperation) -> None:
    assert ops.undo(operation) == (ops.NoteNetworks(LIFE), ops.RemoveLife(LIFE), ops.UnplugNoted(LIFE))


@pytest.mark.parametrize("operation", [StopVm("n", "u", 1), DeleteImage("i"), CreateVolume(POOL, "v", 1)])
def test_what_already_takes_away_or_is_one_atomic_has_no_undo(operation: AnyOperation) -> None:
    assert ops.undo(operation) == ()


def test_a_guest_without_a_network_card_plugs_nothing() -> None:
    bare = VmSpec("b", "u", 1, cpus=1, cpu_mhz=1, ram_mib=1, disks=(), nics=(), vnc_password="")
    assert ops.expand(StartVm(bare)) == (ops.ClaimLife(ops.Life("b", "u", 1)), ops.StartDomain(bare))
