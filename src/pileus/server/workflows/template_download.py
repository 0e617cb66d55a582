"""A template's image comes into the secondary storage of a zone, fetched and inspected by the storage's own host.

A copy is Downloading by exactly one job: `begin` elects it by compare-and-set. A refusal is no failure of the job: it
is what the job finds out, written into the copy for its owner to read, and tried again later where that may help.
"""

from sqlalchemy import RowMapping

from pileus.server import events
from pileus.server.config import keys, value
from pileus.server.db.queries import template as templates
from pileus.server.db.queries.template import Copy
from pileus.server.db.transaction import Tx
from pileus.server.domain.account import ROOT_DOMAIN, SYSTEM_ACCOUNT, SYSTEM_USER
from pileus.server.domain.storage import CopyState
from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Parts, step, workflow
from pileus.server.jobs.submit import Owner, submit
from pileus.server.workflows.ask import HostRefused, ask, make_sure
from pileus.wire.operations import DeleteImage, DownloadTemplate, ImageFacts, ImageFormat, Reason

KIND = "Template"
SYSTEM = Owner(SYSTEM_ACCOUNT, ROOT_DOMAIN, SYSTEM_USER)

WAITING = "waiting for secondary storage"
COMPLETE = "Download Complete"

MOST_ATTEMPTS = 8
FIRST_PAUSE_MS = 60_000
LONGEST_PAUSE_MS = 6 * 3600 * 1000

_DOWNLOAD_SECONDS = 5 * 3600.0
_GIB = 1 << 30


def begin(tx: Tx, copy: Copy) -> bool:
    """Start the download of a copy that is NotThere or Failed, if the zone's secondary storage is up."""
    store = templates.store_of(tx, copy.zone_id, up=True)
    if store is None:
        templates.tell(tx, copy.id, WAITING)
        return False
    begun = templates.move(
        tx,
        copy.id,
        CopyState.DOWNLOADING,
        host_id=store,
        percent=0,
        status="",
        operation_id=None,
        attempts=copy.attempts + 1,
        retry_at=None,
    )
    if not begun:
        return False
    submit(
        tx,
        download_template(copy=copy.id),
        SYSTEM,
        command="downloadTemplate",
        resource_key=f"template_copy:{copy.id}",
        deadline_seconds=_DOWNLOAD_SECONDS + 3600,
    )
    row = templates.row(tx, copy.template_id)
    tell(tx, row, copy, events.types.TEMPLATE_DOWNLOAD_START, f"Template {row['name']} is being downloaded")
    return True


@workflow("template.download")
def download_template(copy: int) -> Parts:
    """Have the image in the zone's secondary storage, or the reason why not in the copy's row."""
    yield downloaded(copy=copy)


@step("template.downloaded")
def downloaded(ctx: StepContext, *, copy: int) -> None:
    """Downloading → Ready or Failed."""
    known = templates.copy_by_id(ctx.tx, copy)
    if known is None or known.state is not CopyState.DOWNLOADING or known.host_id is None:
        return  # It was deleted meanwhile.
    row = templates.row(ctx.tx, known.template_id)
    templates.note_operation(ctx.tx, copy, ctx.operation_id("image"))
    try:
        facts = ask(
            ctx,
            known.host_id,
            _order(ctx.tx, row, known),
            queue=f"image:{known.name}",
            label="image",
            deadline_seconds=_DOWNLOAD_SECONDS,
        )
    except HostRefused as refused:
        _failed(ctx.tx, row, known, refused.refusal.reason, refused.refusal.text)
        return
    if not isinstance(facts, ImageFacts):
        raise TypeError(f"{facts} answers no DownloadTemplate")
    templates.move(
        ctx.tx,
        copy,
        CopyState.READY,
        frm=CopyState.DOWNLOADING,
        percent=100,
        status=COMPLETE,
        url=facts.url,
        sha256=facts.sha256,
        virtual_bytes=facts.virtual_bytes,
        physical_bytes=facts.physical_bytes,
        attempts=0,
    )
    tell(
        ctx.tx,
        row,
        known,
        events.types.TEMPLATE_DOWNLOAD_SUCCESS,
        f"Template {row['name']} is ready",
        size=facts.virtual_bytes,
    )


@downloaded.undo
def not_downloaded(ctx: StepContext, *, copy: int) -> None:
    """Have no image, and let a later job fetch it: the storage did not answer in time, or the fault is ours."""
    known = templates.copy_by_id(ctx.tx, copy)
    if known is None or known.state is not CopyState.DOWNLOADING or known.host_id is None:
        return
    make_sure(ctx, known.host_id, DeleteImage(known.name), queue=f"image:{known.name}", label="image")
    templates.move(ctx.tx, copy, CopyState.NOT_THERE, frm=CopyState.DOWNLOADING, operation_id=None, status=WAITING)
    row = templates.row(ctx.tx, known.template_id)
    description = f"The download of template {row['name']} was broken off"
    tell(ctx.tx, row, known, events.types.TEMPLATE_DOWNLOAD_FAILED, description, level="WARN")


def tell(tx: Tx, row: RowMapping, copy: Copy, kind: str, text: str, *, level: str = "INFO", size: int = 0) -> None:
    """Write an event about a template's copy in a zone."""
    events.record(
        tx,
        type=kind,
        description=text,
        account_id=row["account_id"],
        domain_id=row["domain_id"],
        user_id=SYSTEM_USER,
        level=level,
        resource_kind=KIND,
        resource_id=row["id"],
        zone_id=copy.zone_id,
        facts={"template_id": row["id"], "zone_id": copy.zone_id, "size": size},
    )


def _failed(tx: Tx, row: RowMapping, copy: Copy, reason: Reason, text: str) -> None:
    # What is wrong with the image or its URL stays wrong; what is wrong around it may pass.
    again = reason is not Reason.REJECTED and copy.attempts < MOST_ATTEMPTS
    pause = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2**copy.attempts)
    templates.move(
        tx,
        copy.id,
        CopyState.FAILED,
        frm=CopyState.DOWNLOADING,
        status=text,
        operation_id=None,
        retry_at=tx.now + pause if again else None,
    )
    description = f"Template {row['name']} could not be downloaded: {text}"
    level = "WARN" if again else "ERROR"
    tell(tx, row, copy, events.types.TEMPLATE_DOWNLOAD_FAILED, description, level=level)


def _order(tx: Tx, row: RowMapping, copy: Copy) -> DownloadTemplate:
    sites = value(tx, keys.secstorage_allowed_internal_sites)
    return DownloadTemplate(
        name=copy.name,
        url=row["url"],
        format=ImageFormat(row["format"]),
        checksum=row["checksum"] or "",
        max_bytes=value(tx, keys.max_template_iso_size) * _GIB,
        allowed_cidrs=tuple(site.strip() for site in sites.split(",") if site.strip()),
    )
