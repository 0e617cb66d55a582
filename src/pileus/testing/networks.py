"""Networks with guests, as tests of networks need them: rows of guests without disks, and networks brought to life."""

from sqlalchemy import insert, select

from pileus.server.db.queries import count
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import router as routers
from pileus.server.db.queries.network import Net
from pileus.server.db.queries.router import Router
from pileus.server.db.seed import DIRECT_NETWORK_OFFERING
from pileus.server.db.tables.network import network
from pileus.server.db.tables.offering import network_offering
from pileus.server.db.tables.vm import vm
from pileus.server.domain.account import Resource
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.ids import Id, Network, Vm
from pileus.server.domain.vm import VmKind, VmState, guest_name
from pileus.server.jobs.submit import JobRef, submit
from pileus.server.services.network import create, own_virtual
from pileus.server.services.network_direct import Subnet
from pileus.server.workflows.network_implement import network_implement
from pileus.testing.builders import Cloud, root
from pileus.testing.world import World


def owner_of(caller: Caller) -> Owner:
    """The caller's own account, to do something for."""
    return Owner(caller.account_id, caller.domain_id, caller.user_id)


def virtual_network(world: World, caller: Caller, zone_id: int) -> Id[Network]:
    """The account's own virtual network, not implemented."""
    with world.db.write() as tx:
        networks.public_of(tx, zone_id)
        return Id(own_virtual(tx, owner_of(caller), zone_id))


def direct_network(world: World, caller: Caller, zone_id: int) -> Id[Network]:
    """A Direct network of the account, not implemented: VLAN 77, addresses 192.0.2.10 to .19."""
    with world.db.write() as tx:
        offered = select(network_offering.c.id).where(network_offering.c.name == DIRECT_NETWORK_OFFERING)
        made = create(
            tx,
            root(),
            name="lan",
            display_text="lan",
            offering_id=int(tx.scalar(offered)),
            zone_id=zone_id,
            addresses=Subnet("192.0.2.1", "255.255.255.0", "192.0.2.10", "192.0.2.19"),
            vlan="77",
            account_name=caller.account_name,
            domain_id=caller.domain_id,
            is_shared=None,
            is_default=True,
            network_domain=None,
            tags=None,
        )
        return Id(int(tx.scalar(select(network.c.id).where(network.c.uuid == made["id"]))))


def implement(world: World, network_id: int) -> JobRef:
    """Submit the job that implements a network."""
    with world.db.write() as tx:
        net = networks.by_id(tx, network_id)
        owner = Owner(net.account_id, net.domain_id, 1)
        return submit(tx, network_implement(network=network_id), owner, command="test", resource_key=net.key)


def running_network(world: World, caller: Caller, zone_id: int) -> Id[Network]:
    """The account's own virtual network with its router running."""
    network_id = virtual_network(world, caller, zone_id)
    world.result(implement(world, network_id))
    return network_id


def guest(
    world: World, caller: Caller, cloud: Cloud, *network_ids: int, state: VmState = VmState.STOPPED, name: str = "web"
) -> Id[Vm]:
    """A guest without disks, with a card on each network, the first one default."""
    with world.db.write() as tx:
        vm_id = tx.insert(
            insert(vm).values(
                kind=str(VmKind.USER),
                name=name,
                display_name=name,
                account_id=caller.account_id,
                domain_id=caller.domain_id,
                zone_id=cloud.zone,
                state=str(state),
                service_offering_id=cloud.offering,
                hypervisor="Simulator",
                vnc_password="",
                created_at=tx.now,
            )
        )
        tx.execute(vm.update().where(vm.c.id == vm_id).values(instance_name=guest_name(caller.account_id, vm_id)))
        count.claim(tx, caller.account_id, Resource.INSTANCE)
        for device_id, network_id in enumerate(network_ids):
            nics.allocate(tx, network_id=network_id, vm_id=vm_id, device_id=device_id, is_default=device_id == 0)
    return Id(vm_id)


def set_state(world: World, vm_id: int, state: VmState) -> None:
    """Put a guest into a state, as if it had got there."""
    with world.db.write() as tx:
        tx.execute(vm.update().where(vm.c.id == vm_id).values(state=str(state)))


def net_of(world: World, network_id: int) -> Net:
    """The network as it stands."""
    with world.reading() as tx:
        return networks.by_id(tx, network_id)


def router_of(world: World, network_id: int) -> Router:
    """The network's router as it stands."""
    with world.reading() as tx:
        found = routers.of_network(tx, network_id)
    if found is None:
        raise AssertionError(f"network {network_id} has no router")
    return found


def states(world: World) -> dict[int, str]:
    """States of all networks by key, removed ones included."""
    with world.reading() as tx:
        return {row["id"]: row["state"] for row in tx.all(select(network.c.id, network.c.state))}
