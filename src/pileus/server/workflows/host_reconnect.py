"""A host's connection ends, and its agent makes another: what is stuck on a connection gets a fresh one."""

from sqlalchemy import RowMapping

from pileus.server.db.queries import host as hosts
from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.domain.host import HostState
from pileus.server.events import record, types
from pileus.server.hosts import liveness
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.plan import Parts, step, workflow

KIND = "Host"


@workflow("host.reconnect")
def host_reconnect(host: int) -> Parts:
    """End the connection, wait for the next one."""
    yield end_line(host=host)
    yield await_line(host=host)


@step("host.end_line")
def end_line(ctx: StepContext, *, host: int) -> None:
    """Whichever server holds the connection ends it; a host between two connections needs no more than to come."""
    liveness.ask_to_reconnect(ctx.tx, host)


@end_line.undo
def line_may_stay(ctx: StepContext, *, host: int) -> None:
    """A connection that has not ended yet need not."""
    liveness.ask_no_more(ctx.tx, host)


@step("host.await_line")
def await_line(ctx: StepContext, *, host: int) -> None:
    """Done once a server holds a new connection. A host that is given up meanwhile is told to whoever waits."""
    row = hosts.by_id(ctx.tx, host)
    if row["state"] in (HostState.DOWN, HostState.REMOVED):
        raise ResourceUnavailable(f"host {row['name']} is {row['state']}: it did not connect again")
    if row["reconnect_asked_at"] is not None or row["server"] is None or row["state"] != HostState.UP:
        raise Nap(topic=f"host:{host}")
    _tell(ctx, row)


@await_line.undo
def nothing_to_await(ctx: StepContext, *, host: int) -> None:
    """A connection that is there is as good as the one that ended."""


def _tell(ctx: StepContext, row: RowMapping) -> None:
    record(
        ctx.tx,
        type=types.HOST_RECONNECT,
        description=f"Host {row['name']} has connected again",
        account_id=ctx.account_id,
        domain_id=ctx.domain_id,
        user_id=ctx.user_id,
        resource_kind=KIND,
        resource_id=row["id"],
        zone_id=row["zone_id"],
        start_id=ctx.start_event_id,
    )
