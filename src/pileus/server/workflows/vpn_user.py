"""VPN users come to the routers of their account, or leave them."""

from sqlalchemy import select, update

from pileus.server.db.tables.vpn import remote_access_vpn, vpn_user
from pileus.server.db.transition import transition
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.network import RULE, RuleState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.workflows.network_ready import await_delivered

KIND = "VpnUser"


@workflow("vpn_user.add")
def vpn_user_add(*, user: int, networks: list[tuple[int, int]]) -> Parts:
    """The user is stored with the command; `networks` are those with a VPN of the account, with generations."""
    yield admit_user(user=user, networks=networks)


@workflow("vpn_user.remove")
def vpn_user_remove(*, user: int, networks: list[tuple[int, int]]) -> Parts:
    """The user is revoked with the command; gone once no router lets them in."""
    yield dismiss_user(user=user, networks=networks)


@step("vpn_user.admit")
def admit_user(ctx: StepContext, *, user: int, networks: list[tuple[int, int]]) -> None:
    """Active once every router has them."""
    if _live_state(ctx, user) not in (RuleState.ADD, RuleState.ACTIVE):
        raise ResourceUnavailable("the VPN user was removed meanwhile")
    for network, generation in networks:
        await_delivered(ctx, network, generation)
    if transition(ctx.tx, vpn_user, user, RULE, RuleState.ACTIVE, frm=RuleState.ADD):
        _tell(ctx, user, types.VPN_USER_ADD, "Added")


@admit_user.undo
def unadmit_user(ctx: StepContext, *, user: int, networks: list[tuple[int, int]]) -> None:
    """Nobody of that name may come in."""
    if _forget(ctx, user):
        _changed(ctx, user)


@step("vpn_user.dismiss")
def dismiss_user(ctx: StepContext, *, user: int, networks: list[tuple[int, int]]) -> None:
    """Gone once every router has dropped them."""
    if _live_state(ctx, user) is not RuleState.REVOKE:
        return
    for network, generation in networks:
        await_delivered(ctx, network, generation)
    _tell(ctx, user, types.VPN_USER_REMOVE, "Removed")
    _forget(ctx, user)


@dismiss_user.undo
def undismiss_user(ctx: StepContext, *, user: int, networks: list[tuple[int, int]]) -> None:
    """A router that would not drop them lets them in still, and so do the others."""
    if transition(ctx.tx, vpn_user, user, RULE, RuleState.ACTIVE, frm=RuleState.REVOKE):
        _changed(ctx, user)


def _changed(ctx: StepContext, user: int) -> None:
    account = select(vpn_user.c.account_id).where(vpn_user.c.id == user).scalar_subquery()
    ways_in = (remote_access_vpn.c.live == 1, remote_access_vpn.c.account_id == account)
    for network in ctx.tx.execute(select(remote_access_vpn.c.network_id).where(*ways_in)).scalars().all():
        virtual_router.changed(ctx.tx, network)


def _live_state(ctx: StepContext, user: int) -> RuleState | None:
    state = ctx.tx.scalar(select(vpn_user.c.state).where(vpn_user.c.id == user, vpn_user.c.live == 1))
    return None if state is None else RuleState(state)


def _forget(ctx: StepContext, user: int) -> bool:
    gone = update(vpn_user).where(vpn_user.c.id == user, vpn_user.c.live == 1)
    # The password is of no use any more, and is kept by nobody.
    return ctx.tx.execute(gone.values(live=None, state=str(RuleState.REVOKE), password="")).rowcount > 0


def _tell(ctx: StepContext, user: int, type: str, verb: str) -> None:
    row = ctx.tx.one(select(vpn_user).where(vpn_user.c.id == user))
    if row is not None:
        record(
            ctx.tx,
            type=type,
            description=f"{verb} VPN user {row['username']}",
            account_id=row["account_id"],
            domain_id=row["domain_id"],
            user_id=ctx.user_id,
            resource_kind=KIND,
            resource_id=user,
            start_id=ctx.start_event_id,
        )
