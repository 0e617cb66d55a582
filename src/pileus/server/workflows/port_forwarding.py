"""A port forwarding rule comes to a router, or leaves it."""

from sqlalchemy import select, update

from pileus.server.db.tables.network import port_forwarding_rule
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.network import RULE, RuleState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_ready import await_delivered

KIND = "FirewallRule"


@workflow("port_forwarding.create")
def port_forwarding_create(network: int, rule: int, generation: int) -> Parts:
    """The rule is stored with the command; the router gets it here."""
    yield apply_rule(network=network, rule=rule, generation=generation)


@workflow("port_forwarding.delete")
def port_forwarding_delete(network: int, rule: int, generation: int) -> Parts:
    """The rule is revoked with the command; it is gone once the router has dropped it."""
    yield drop_rule(network=network, rule=rule, generation=generation)


@step("port_forwarding.apply")
def apply_rule(ctx: StepContext, *, network: int, rule: int, generation: int) -> None:
    """Active once the router has it."""
    if _live_state(ctx, rule) not in (RuleState.ADD, RuleState.ACTIVE):
        raise ResourceUnavailable("the rule was removed meanwhile")
    await_delivered(ctx, network, generation)
    if transition(ctx.tx, port_forwarding_rule, rule, RULE, RuleState.ACTIVE, frm=RuleState.ADD):
        _tell(ctx, rule, types.NET_RULEADD, "Added")


@apply_rule.undo
def unapply_rule(ctx: StepContext, *, network: int, rule: int, generation: int) -> None:
    """The rule is no more; the router drops it with its next config."""
    if _live_state(ctx, rule) is not None:
        _forget(ctx, rule)
        virtual_router.changed(ctx.tx, network)


@step("port_forwarding.drop")
def drop_rule(ctx: StepContext, *, network: int, rule: int, generation: int) -> None:
    """Gone once the router has dropped it."""
    if _live_state(ctx, rule) is not RuleState.REVOKE:
        return
    await_delivered(ctx, network, generation)
    _tell(ctx, rule, types.NET_RULEDELETE, "Deleted")
    _forget(ctx, rule)


@drop_rule.undo
def undrop_rule(ctx: StepContext, *, network: int, rule: int, generation: int) -> None:
    """A router that would not drop the rule has it still."""
    if _live_state(ctx, rule) is RuleState.REVOKE:
        transition(ctx.tx, port_forwarding_rule, rule, RULE, RuleState.ACTIVE, frm=RuleState.REVOKE)
        virtual_router.changed(ctx.tx, network)


def _live_state(ctx: StepContext, rule: int) -> RuleState | None:
    found = select(port_forwarding_rule.c.state).where(
        port_forwarding_rule.c.id == rule, port_forwarding_rule.c.live == 1
    )
    state = ctx.tx.scalar(found)
    return None if state is None else RuleState(state)


def _forget(ctx: StepContext, rule: int) -> None:
    gone = update(port_forwarding_rule).where(port_forwarding_rule.c.id == rule)
    ctx.tx.execute(gone.values(live=None, state=str(RuleState.REVOKE)))


def _tell(ctx: StepContext, rule: int, type: str, verb: str) -> None:
    row = ctx.tx.one(select(port_forwarding_rule).where(port_forwarding_rule.c.id == rule))
    if row is None:
        return
    record(
        ctx.tx,
        type=type,
        description=f"{verb} port forwarding rule {row['uuid']}",
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=ctx.user_id,
        resource_kind=KIND,
        resource_id=rule,
        start_id=ctx.start_event_id,
    )
