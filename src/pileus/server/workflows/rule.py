"""Rules at public addresses come to a router, or leave it: one way for all kinds.

The command writes the rule and declares a new generation of the network's config; the job waits until the router has
it. A rule may have opened the firewall for itself: what was opened shares its fate.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select, update

from pileus.server.db.queries import rule as rules
from pileus.server.db.queries.rule import BALANCER, FIREWALL, IP_FORWARDING, KINDS, PORT_FORWARDING, VPN, Kind
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.network import RuleState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_ready import await_delivered

ADDED: Mapping[Kind, str] = {
    PORT_FORWARDING: types.NET_RULEADD,
    FIREWALL: types.FIREWALL_OPEN,
    IP_FORWARDING: types.NET_RULEADD,
    BALANCER: types.LB_CREATE,
    VPN: types.VPN_REMOTE_ACCESS_CREATE,
}
CHANGED: Mapping[Kind, str] = {PORT_FORWARDING: types.NET_RULEMODIFY, BALANCER: types.LB_UPDATE}
REMOVED: Mapping[Kind, str] = {
    PORT_FORWARDING: types.NET_RULEDELETE,
    FIREWALL: types.FIREWALL_CLOSE,
    IP_FORWARDING: types.NET_RULEDELETE,
    BALANCER: types.LB_DELETE,
    VPN: types.VPN_REMOTE_ACCESS_DESTROY,
}


@workflow("rule.create")
def rule_create(*, kind: str, network: int, rule: int, generation: int) -> Parts:
    """The rule is stored with the command; the router gets it here."""
    yield apply_rule(kind=kind, network=network, rule=rule, generation=generation)


@workflow("rule.delete")
def rule_delete(*, kind: str, network: int, rule: int, generation: int) -> Parts:
    """The rule is revoked with the command; it is gone once the router has dropped it."""
    yield drop_rule(kind=kind, network=network, rule=rule, generation=generation)


@workflow("rule.change")
def rule_change(*, kind: str, network: int, rule: int, generation: int, before: dict[str, Any]) -> Parts:
    """The rule has its new values since the command; `before` is what they were."""
    yield change_rule(kind=kind, network=network, rule=rule, generation=generation, before=before)


@step("rule.apply")
def apply_rule(ctx: StepContext, *, kind: str, network: int, rule: int, generation: int) -> None:
    """Active once the router has it."""
    if rules.live_state(ctx.tx, KINDS[kind], rule) not in (RuleState.ADD, RuleState.ACTIVE):
        raise ResourceUnavailable("the rule was removed meanwhile")
    await_delivered(ctx, network, generation)
    if rules.activate(ctx.tx, KINDS[kind], rule, frm=RuleState.ADD):
        _tell(ctx, KINDS[kind], rule, ADDED, "Added")


@apply_rule.undo
def unapply_rule(ctx: StepContext, *, kind: str, network: int, rule: int, generation: int) -> None:
    """The rule is no more; the router drops it with its next config."""
    if rules.live_state(ctx.tx, KINDS[kind], rule) is not None:
        rules.forget(ctx.tx, KINDS[kind], KINDS[kind].table.c.id == rule)
        virtual_router.changed(ctx.tx, network)


@step("rule.drop")
def drop_rule(ctx: StepContext, *, kind: str, network: int, rule: int, generation: int) -> None:
    """Gone once the router has dropped it."""
    if rules.live_state(ctx.tx, KINDS[kind], rule) is not RuleState.REVOKE:
        return
    await_delivered(ctx, network, generation)
    _tell(ctx, KINDS[kind], rule, REMOVED, "Deleted")
    rules.forget(ctx.tx, KINDS[kind], KINDS[kind].table.c.id == rule)


@drop_rule.undo
def undrop_rule(ctx: StepContext, *, kind: str, network: int, rule: int, generation: int) -> None:
    """A router that would not drop the rule has it still."""
    if rules.activate(ctx.tx, KINDS[kind], rule, frm=RuleState.REVOKE):
        virtual_router.changed(ctx.tx, network)


@step("rule.change")
def change_rule(
    ctx: StepContext, *, kind: str, network: int, rule: int, generation: int, before: dict[str, Any]
) -> None:
    """Wait until the router does as the rule says now."""
    if rules.live_state(ctx.tx, KINDS[kind], rule) is None:
        raise ResourceUnavailable("the rule was removed meanwhile")
    await_delivered(ctx, network, generation)
    _tell(ctx, KINDS[kind], rule, CHANGED, "Changed")


@change_rule.undo
def unchange_rule(
    ctx: StepContext, *, kind: str, network: int, rule: int, generation: int, before: dict[str, Any]
) -> None:
    """A router that refuses the change does as the rule said before."""
    table = KINDS[kind].table
    if rules.live_state(ctx.tx, KINDS[kind], rule) is not None:
        ctx.tx.execute(update(table).where(table.c.id == rule).values(**before))
        virtual_router.changed(ctx.tx, network)


def _tell(ctx: StepContext, kind: Kind, rule: int, type_of: Mapping[Kind, str], verb: str) -> None:
    row = ctx.tx.one(select(kind.table).where(kind.table.c.id == rule))
    if row is None:
        return
    record(
        ctx.tx,
        type=type_of[kind],
        description=f"{verb} {kind.noun} {row['uuid']}",
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=ctx.user_id,
        resource_kind=kind.name,
        resource_id=rule,
        start_id=ctx.start_event_id,
    )
