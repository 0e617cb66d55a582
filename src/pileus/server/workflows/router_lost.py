"""A router that a host says it does not run: its life is over, and if guests need it another one begins."""

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import router as routers
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT, SYSTEM_USER
from pileus.server.domain.caller import Owner
from pileus.server.domain.network import NetworkState
from pileus.server.domain.vm import VmState
from pileus.server.events import types
from pileus.server.jobs.submit import submit
from pileus.server.workflows.network_implement import network_implement
from pileus.server.workflows.router_start import end_life, happened

ACTIVE = (VmState.STARTING, VmState.RUNNING, VmState.STOPPING, VmState.MIGRATING, VmState.UNKNOWN)
"""States of guests that use their networks."""


def lost(tx: Tx, vm_id: int, *, epoch: int, why: str) -> bool:
    """End the router's life of this epoch, and start it anew when its network has active guests.

    Only a router that was Running: one that is being started or stopped is in the hands of that job. False then.
    """
    router = routers.by_id(tx, vm_id)
    if router is None or router.state is not VmState.RUNNING or not end_life(tx, router, epoch):
        return False
    happened(
        tx,
        router,
        types.ROUTER_HA,
        f"Router {router.name} stopped by itself: {why}",
        user_id=SYSTEM_USER,
        level="WARN",
    )
    net = networks.by_id(tx, router.network_id)
    if net.state is NetworkState.IMPLEMENTED and nics.guests_on(tx, net.id, states=ACTIVE):
        submit(
            tx,
            network_implement(network=net.id),
            Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN, SYSTEM_USER),
            command="network.implement",
            instance_kind="Network",
            instance_id=net.id,
            resource_key=net.key,
        )
    return True
