"""Guests come to a load balancer, or leave it."""

from sqlalchemy import select, update

from pileus.server.db.queries import rule as rules
from pileus.server.db.queries.rule import BALANCER
from pileus.server.db.tables.rule import load_balancer_member, load_balancer_rule
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.network import RULE, RuleState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_ready import await_delivered


@workflow("load_balancer.assign")
def load_balancer_assign(*, network: int, rule: int, members: list[int], generation: int) -> Parts:
    """The members are stored with the command; the router gets them here."""
    yield bring_members(network=network, rule=rule, members=members, generation=generation)


@workflow("load_balancer.remove")
def load_balancer_remove(*, network: int, rule: int, members: list[int], generation: int) -> Parts:
    """The members are revoked with the command; they are gone once the router has dropped them."""
    yield drop_members(network=network, rule=rule, members=members, generation=generation)


@step("load_balancer.bring")
def bring_members(ctx: StepContext, *, network: int, rule: int, members: list[int], generation: int) -> None:
    """Active once the router has them. Whoever went with its guest meanwhile is not missed."""
    if rules.live_state(ctx.tx, BALANCER, rule) not in (RuleState.ADD, RuleState.ACTIVE):
        raise ResourceUnavailable("the load balancer rule was removed meanwhile")
    await_delivered(ctx, network, generation)
    came = [
        member
        for member in members
        if transition(ctx.tx, load_balancer_member, member, RULE, RuleState.ACTIVE, frm=RuleState.ADD)
    ]
    if came:
        _tell(ctx, rule, types.LB_ASSIGN_TO_RULE, f"Assigned {len(came)} virtual machines to")


@bring_members.undo
def unbring_members(ctx: StepContext, *, network: int, rule: int, members: list[int], generation: int) -> None:
    """They are no members; the router drops them with its next config."""
    if _forget(ctx, members):
        virtual_router.changed(ctx.tx, network)


@step("load_balancer.drop")
def drop_members(ctx: StepContext, *, network: int, rule: int, members: list[int], generation: int) -> None:
    """Gone once the router has dropped them."""
    await_delivered(ctx, network, generation)
    if _forget(ctx, members):
        _tell(ctx, rule, types.LB_REMOVE_FROM_RULE, f"Removed {len(members)} virtual machines from")


@drop_members.undo
def undrop_members(ctx: StepContext, *, network: int, rule: int, members: list[int], generation: int) -> None:
    """A router that would not drop them has them still."""
    back = [
        member
        for member in members
        if transition(ctx.tx, load_balancer_member, member, RULE, RuleState.ACTIVE, frm=RuleState.REVOKE)
    ]
    if back:
        virtual_router.changed(ctx.tx, network)


def _forget(ctx: StepContext, members: list[int]) -> bool:
    table = load_balancer_member.c
    gone = update(load_balancer_member).where(table.id.in_(members), table.live == 1)
    return ctx.tx.execute(gone.values(live=None, state=str(RuleState.REVOKE))).rowcount > 0


def _tell(ctx: StepContext, rule: int, type: str, text: str) -> None:
    row = ctx.tx.one(select(load_balancer_rule).where(load_balancer_rule.c.id == rule))
    if row is not None:
        record(
            ctx.tx,
            type=type,
            description=f"{text} load balancer rule {row['name']}",
            account_id=row["account_id"],
            domain_id=row["domain_id"],
            user_id=ctx.user_id,
            resource_kind=BALANCER.name,
            resource_id=rule,
            start_id=ctx.start_event_id,
        )
