"""An address that belonged to one guest whole becomes an address like others."""

from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries import rule as rules
from pileus.server.db.queries.rule import IP_FORWARDING
from pileus.server.domain.network import RuleState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_ready import await_delivered


@workflow("static_nat.disable")
def static_nat_disable(*, network: int, address: int, vm: int, of_rules: list[int], generation: int) -> Parts:
    """The mapping is not in force since the command, its rules are revoked; here the router lets go of them."""
    yield end_static_nat(network=network, address=address, vm=vm, of_rules=of_rules, generation=generation)


@step("static_nat.end")
def end_static_nat(
    ctx: StepContext, *, network: int, address: int, vm: int, of_rules: list[int], generation: int
) -> None:
    """Once the router has let go, the address may have other rules."""
    held = public_ips.by_id(ctx.tx, address)
    if held is None or held.network_id != network or held.vm_id != vm or held.is_static_nat:
        return
    await_delivered(ctx, network, generation)
    for rule in of_rules:
        rules.forget(ctx.tx, IP_FORWARDING, IP_FORWARDING.table.c.id == rule)
    public_ips.give_whole(ctx.tx, address, None, in_force=False)
    record(
        ctx.tx,
        type=types.STATICNAT_DISABLE,
        description=f"Disabled static NAT of address {held.ip}",
        account_id=held.account_id or 0,
        domain_id=held.domain_id or 0,
        user_id=ctx.user_id,
        resource_kind="IpAddress",
        resource_id=address,
        zone_id=held.zone_id,
        start_id=ctx.start_event_id,
    )


@end_static_nat.undo
def resume_static_nat(
    ctx: StepContext, *, network: int, address: int, vm: int, of_rules: list[int], generation: int
) -> None:
    """A router that would not let go of it has it still."""
    held = public_ips.by_id(ctx.tx, address)
    if held is None or held.network_id != network or held.vm_id != vm or held.is_static_nat:
        return
    public_ips.give_whole(ctx.tx, address, vm, in_force=True)
    for rule in of_rules:
        rules.activate(ctx.tx, IP_FORWARDING, rule, frm=RuleState.REVOKE)
    virtual_router.changed(ctx.tx, network)
