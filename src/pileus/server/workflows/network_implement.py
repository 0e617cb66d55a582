"""A network comes to life: its VLAN, its source NAT address, its router.

It runs under the network's resource key. A network that another job has implemented is left as it is; an undo takes
down only what its own job set up (`network.set_up_by`). Errors: no VLAN or no address left (533).
"""

from sqlalchemy import select

from pileus.server.db.queries import count
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import nic as nics
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries import router as routers
from pileus.server.db.queries import rule as rules
from pileus.server.db.queries.network import Net
from pileus.server.db.queries.public_ip import Address
from pileus.server.db.tables.event import event
from pileus.server.db.tables.job import job
from pileus.server.db.tables.network import network as network_table
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.account import SYSTEM_USER, Resource
from pileus.server.domain.errors import InsufficientCapacity, ResourceUnavailable
from pileus.server.domain.network import NETWORK, NetworkState
from pileus.server.events import record, types
from pileus.server.events.write import COMPLETED, INFO
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.router_start import KIND, start_router
from pileus.wire.places import Isolation, Traffic


@workflow("network.implement")
def network_implement(network: int) -> Parts:
    """Have the network Implemented and its router running."""
    yield begin(network=network)
    yield give_vnet(network=network)
    yield give_address(network=network)
    yield make_router(network=network)
    yield start_router(network)
    yield finish(network=network)


@step("network.begin")
def begin(ctx: StepContext, *, network: int) -> None:
    """Implementing, unless the network is implemented."""
    net = networks.by_id(ctx.tx, network)
    if net.state is NetworkState.IMPLEMENTED:
        return
    if not net.live or net.state not in (NetworkState.ALLOCATED, NetworkState.SETUP, NetworkState.IMPLEMENTING):
        raise ResourceUnavailable(f"network {net.name} is {net.state}")
    transition(ctx.tx, network_table, network, NETWORK, NetworkState.IMPLEMENTING)
    networks.change(ctx.tx, network, set_up_by=ctx.job_id)


@begin.undo
def retreat(ctx: StepContext, *, network: int) -> None:
    """Back to what the network was before, if this job had begun to implement it."""
    if _mine(ctx, network) is None:
        return
    lay_down(ctx.tx, network)
    networks.change(ctx.tx, network, set_up_by=None)


@step("network.give_vnet")
def give_vnet(ctx: StepContext, *, network: int) -> None:
    """The lowest free VLAN of the zone, unless the network holds one or had one specified."""
    net = networks.by_id(ctx.tx, network)
    if net.vnet is not None or net.isolation is Isolation.UNTAGGED:
        return
    vnet = networks.claim_vnet(ctx.tx, net)
    networks.change(ctx.tx, network, vnet=vnet)
    _vnet_event(ctx.tx, net, types.ZONE_VLAN_ASSIGN, f"Assigned VLAN {vnet} to network {net.name}", vnet)


@give_vnet.undo
def take_vnet(ctx: StepContext, *, network: int) -> None:
    """Give the VLAN back."""
    if _mine(ctx, network) is not None:
        free_vnet(ctx.tx, network)


@step("network.give_address")
def give_address(ctx: StepContext, *, network: int) -> None:
    """A source NAT address for a virtual network that has none; it counts against the account's limit."""
    net = networks.by_id(ctx.tx, network)
    if not net.is_virtual or public_ips.source_nat_of(ctx.tx, network) is not None:
        return
    held = public_ips.claim_public(
        ctx.tx,
        zone_id=net.zone_id,
        account_id=net.account_id,
        domain_id=net.domain_id,
        network_id=network,
        source_nat=True,
        job_id=ctx.job_id,
    )
    count.claim(ctx.tx, net.account_id, Resource.PUBLIC_IP)
    record(
        ctx.tx,
        type=types.NET_IPASSIGN,
        description=f"Assigned source NAT address {held.ip} to network {net.name}",
        account_id=net.account_id,
        domain_id=net.domain_id,
        user_id=ctx.user_id,
        resource_kind="IpAddress",
        resource_id=held.id,
        zone_id=net.zone_id,
        facts={"ip": held.ip, "source_nat": True},
    )


@give_address.undo
def take_address(ctx: StepContext, *, network: int) -> None:
    """Give the source NAT address back, if this job claimed it."""
    held = public_ips.source_nat_of(ctx.tx, network)
    if held is not None and held.job_id == ctx.job_id:
        release_address(ctx.tx, networks.by_id(ctx.tx, network), held, user_id=ctx.user_id)


@step("router.create")
def make_router(ctx: StepContext, *, network: int) -> None:
    """The row of the network's router with its cards: the guest side first, then the public side."""
    net = networks.by_id(ctx.tx, network)
    if net.router_id is not None:
        return
    tx = ctx.tx
    router_id = routers.add(
        tx,
        account_id=net.account_id,
        domain_id=net.domain_id,
        zone_id=net.zone_id,
        hypervisor=routers.hypervisor_of(tx, net.zone_id),
    )
    networks.change_config(tx, network, router_id=router_id)
    if net.is_virtual:
        nics.add(
            tx,
            vm_id=router_id,
            network_id=network,
            ip=net.gateway,
            netmask=str(net.subnet.netmask),
            gateway=None,
            device_id=0,
            traffic_type=str(Traffic.GUEST),
            is_default=0,
        )
        _public_card(tx, net, router_id)
    else:
        _direct_card(tx, net, router_id)
    networks.bump(tx, network)
    record(
        tx,
        type=types.ROUTER_CREATE,
        description=f"Created the router of network {net.name}",
        account_id=net.account_id,
        domain_id=net.domain_id,
        user_id=ctx.user_id,
        resource_kind=KIND,
        resource_id=router_id,
        zone_id=net.zone_id,
    )


@make_router.undo
def unmake_router(ctx: StepContext, *, network: int) -> None:
    """Remove the router of a network that this job had begun to implement."""
    if _mine(ctx, network) is not None:
        remove_router(ctx.tx, network)


@step("network.finish")
def finish(ctx: StepContext, *, network: int) -> None:
    """Implemented."""
    transition(ctx.tx, network_table, network, NETWORK, NetworkState.IMPLEMENTED, frm=NetworkState.IMPLEMENTING)


@finish.undo
def reopen(ctx: StepContext, *, network: int) -> None:
    """No longer Implemented, so that nobody relies on what the other undos take away."""
    if _mine(ctx, network) is not None:
        transition(ctx.tx, network_table, network, NETWORK, NetworkState.SHUTDOWN, frm=NetworkState.IMPLEMENTED)


def remove_router(tx: Tx, network: int) -> None:
    """Take the network's stopped router out of use, and free the addresses it held."""
    net = networks.by_id(tx, network)
    if net.router_id is None:
        return
    routers.remove(tx, net.router_id)
    public_ips.release_direct_of(tx, net.router_id)
    networks.change_config(tx, network, router_id=None)


def free_vnet(tx: Tx, network: int) -> None:
    """The network no longer holds a VLAN, unless an administrator specified it."""
    net = networks.by_id(tx, network)
    if net.specified_vlan:
        return
    networks.release_vnet(tx, network)
    networks.change(tx, network, vnet=None)
    if net.vnet is not None:
        _vnet_event(tx, net, types.ZONE_VLAN_RELEASE, f"Released VLAN {net.vnet} of network {net.name}", net.vnet)


def _vnet_event(tx: Tx, net: Net, type: str, text: str, vnet: int) -> None:
    record(
        tx,
        type=type,
        description=text,
        account_id=net.account_id,
        domain_id=net.domain_id,
        user_id=SYSTEM_USER,
        resource_kind="Network",
        resource_id=net.id,
        zone_id=net.zone_id,
        facts={"vnet": vnet},
    )


def lay_down(tx: Tx, network: int) -> None:
    """Back to what a network is before it is implemented."""
    net = networks.by_id(tx, network)
    if net.state is NetworkState.IMPLEMENTING:
        transition(tx, network_table, network, NETWORK, NetworkState.SHUTDOWN, frm=NetworkState.IMPLEMENTING)
    resting = NetworkState.SETUP if net.specified_vlan else NetworkState.ALLOCATED
    transition(tx, network_table, network, NETWORK, resting, frm=NetworkState.SHUTDOWN)


def release_address(tx: Tx, net: Net, held: Address, *, user_id: int, start_id: int | None = None) -> None:
    """Free a public address of a network, with its rules, and the account's claim on it."""
    if not public_ips.release(tx, held.id):
        return
    # Whoever may have an address may make rules of it, before the job that brings it has come to its end too.
    rules.forget_all(tx, "public_ip_id", held.id)
    count.release(tx, net.account_id, Resource.PUBLIC_IP)
    if start_id is None and not _told_of(tx, held):
        return
    record(
        tx,
        type=types.NET_IPRELEASE,
        description=f"Released address {held.ip} of network {net.name}",
        account_id=net.account_id,
        domain_id=net.domain_id,
        user_id=user_id,
        resource_kind="IpAddress",
        resource_id=held.id,
        zone_id=net.zone_id,
        start_id=start_id,
        facts={"ip": held.ip, "source_nat": held.is_source_nat},
    )


def _told_of(tx: Tx, held: Address) -> bool:
    """Whether usage of the address has begun: the job of associateIpAddress says so at its end only."""
    asked = select(job.c.start_event_id).where(job.c.id == held.job_id, job.c.command == "associateIpAddress")
    start_id = tx.scalar(asked)
    if start_id is None:
        return True
    said = select(event.c.id).where(event.c.start_id == start_id, event.c.type == types.NET_IPASSIGN)
    return tx.scalar(said.where(event.c.state == COMPLETED, event.c.level == INFO).limit(1)) is not None


def _public_card(tx: Tx, net: Net, router_id: int) -> None:
    outside = public_ips.source_nat_of(tx, net.id)
    if outside is None:
        raise InsufficientCapacity(f"network {net.name} has no source NAT address")
    nics.add(
        tx,
        vm_id=router_id,
        network_id=networks.public_of(tx, net.zone_id),
        ip=outside.ip,
        netmask=outside.netmask,
        gateway=outside.gateway,
        device_id=1,
        traffic_type=str(Traffic.PUBLIC),
        is_default=1,
    )


def _direct_card(tx: Tx, net: Net, router_id: int) -> None:
    held = public_ips.claim_direct(
        tx, network_id=net.id, account_id=net.account_id, domain_id=net.domain_id, vm_id=router_id
    )
    if held is None:
        raise InsufficientCapacity(f"no address is left in network {net.name} for its router")
    nics.add(
        tx,
        vm_id=router_id,
        network_id=net.id,
        ip=held.ip,
        netmask=held.netmask,
        gateway=held.gateway,
        device_id=0,
        traffic_type=str(Traffic.GUEST),
        is_default=1,
    )


def _mine(ctx: StepContext, network: int) -> Net | None:
    """The network, if this very job set it up."""
    net = networks.by_id(ctx.tx, network)
    return net if net.set_up_by == ctx.job_id else None
