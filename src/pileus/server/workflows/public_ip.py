"""An address comes to a network, or leaves it: the router knows before the job ends and anybody else gets it."""

from pileus.server.db.queries import network as networks
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.tables.network import public_ip
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.network import IP, IpState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_implement import release_address
from pileus.server.workflows.network_ready import await_delivered


@workflow("public_ip.associate")
def public_ip_associate(network: int, address: int, generation: int) -> Parts:
    """The address is claimed with the command; the router gets it here."""
    yield bring_address(network=network, address=address, generation=generation)


@workflow("public_ip.disassociate")
def public_ip_disassociate(network: int, address: int, generation: int) -> Parts:
    """The address is Releasing since the command; once the router has let go of it, it is free."""
    yield withdraw_address(network=network, address=address, generation=generation)


@step("public_ip.bring")
def bring_address(ctx: StepContext, *, network: int, address: int, generation: int) -> None:
    """Wait for the router, then say so."""
    held = public_ips.by_id(ctx.tx, address)
    if held is None or held.network_id != network or held.state is not IpState.ALLOCATED:
        raise ResourceUnavailable("the address was released meanwhile")
    await_delivered(ctx, network, generation)
    net = networks.by_id(ctx.tx, network)
    record(
        ctx.tx,
        type=types.NET_IPASSIGN,
        description=f"Assigned address {held.ip} to network {net.name}",
        account_id=net.account_id,
        domain_id=net.domain_id,
        user_id=ctx.user_id,
        resource_kind="IpAddress",
        resource_id=address,
        zone_id=net.zone_id,
        start_id=ctx.start_event_id,
        facts={"ip": held.ip, "source_nat": held.is_source_nat},
    )


@bring_address.undo
def unbring(ctx: StepContext, *, network: int, address: int, generation: int) -> None:
    """Free the address that was claimed with the command; the router lets go of it with its next config."""
    held = public_ips.by_id(ctx.tx, address)
    if held is None or held.network_id != network or held.job_id != ctx.job_id:
        return
    net = networks.by_id(ctx.tx, network)
    release_address(ctx.tx, net, held, user_id=ctx.user_id)
    virtual_router.changed(ctx.tx, network)


@step("public_ip.withdraw")
def withdraw_address(ctx: StepContext, *, network: int, address: int, generation: int) -> None:
    """Wait until the router has let go of the address, then free it with its rules."""
    held = public_ips.by_id(ctx.tx, address)
    if held is None or held.network_id != network or held.state is not IpState.RELEASING:
        return
    await_delivered(ctx, network, generation)
    release_address(ctx.tx, networks.by_id(ctx.tx, network), held, user_id=ctx.user_id, start_id=ctx.start_event_id)


@withdraw_address.undo
def keep_address(ctx: StepContext, *, network: int, address: int, generation: int) -> None:
    """A router that would not let go of it has it still."""
    if transition(ctx.tx, public_ip, address, IP, IpState.ALLOCATED, frm=IpState.RELEASING):
        virtual_router.changed(ctx.tx, network)
