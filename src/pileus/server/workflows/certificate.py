"""A custom certificate was stored with the command; what serves it asks the database. All that is left is to say so."""

from sqlalchemy import select

from pileus.server import events
from pileus.server.db.tables.ssh_key import custom_certificate
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow


@workflow("certificate.stored")
def certificate_stored(*, certificate: int) -> Parts:
    """Announce a certificate."""
    yield announce(certificate=certificate)


@step("certificate.announce")
def announce(ctx: StepContext, *, certificate: int) -> None:
    """The COMPLETED event of the upload."""
    name = ctx.tx.scalar(select(custom_certificate.c.name).where(custom_certificate.c.id == certificate))
    events.record(
        ctx.tx,
        type=events.types.UPLOAD_CUSTOM_CERTIFICATE,
        description=f"Successfully uploaded certificate {name}",
        account_id=ctx.account_id,
        domain_id=ctx.domain_id,
        user_id=ctx.user_id,
        start_id=ctx.start_event_id,
    )


@announce.undo
def stays_stored(ctx: StepContext, *, certificate: int) -> None:
    """What was stored with the command stays: it was checked then."""
