"""Mail of alerts leaves: what is due is sent outside any transaction, and tried again later when the server would not.

A mail is marked as sent once the server has taken it. Who dies in between sends it again with the same Message-ID.
"""

from functools import partial

import structlog
from sqlalchemy import RowMapping, bindparam, select, update

from pileus.server.alerts.mail import Mail, MailFailed, MailSettings, line, mail_settings
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.event import alert_mail
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs.reconciler import reconciler

log = structlog.get_logger()

AT_A_TIME = 50
FIRST_PAUSE_MS = 60_000
LONGEST_PAUSE_MS = 3_600_000
GIVE_UP_MS = 7 * 24 * 3_600_000
"""A mail that no server took for so long is let go, with a line in the log."""


@reconciler("alert-mail", period_seconds=30.0)
def deliver(db: Database) -> None:
    """Send what is due. A server that cannot be reached puts all of it off."""
    with db.read() as tx:
        settings, due = mail_settings(tx), _due(tx)
    if settings is None or not due:
        return
    try:
        _send(db, settings, due)
    except MailFailed as failure:
        log.warning("alerts cannot be mailed", reason=str(failure), waiting=len(due))
        db.run(partial(_put_off, rows=[row for row in due if _is_due(db, row["id"])], failure=str(failure)))


def _send(db: Database, settings: MailSettings, due: list[RowMapping]) -> None:
    with line(settings) as server:
        for row in due:
            refused = server.send(Mail(row["uuid"], row["subject"], row["body"]))
            if refused:
                log.warning("some would not take a mail", refused=list(refused))
            db.run(partial(_sent, mail_id=row["id"]))


def _due(tx: Tx) -> list[RowMapping]:
    return _DUE.all(tx, now=tx.now)


_DUE = Prepared(
    select(alert_mail)
    .where(alert_mail.c.due == 1, alert_mail.c.next_at <= bindparam("now"))
    .order_by(alert_mail.c.id)
    .limit(AT_A_TIME)
)


def _is_due(db: Database, mail_id: int) -> bool:
    with db.read() as tx:
        found = select(alert_mail.c.id).where(alert_mail.c.id == mail_id, alert_mail.c.due == 1)
        return tx.scalar(found) is not None


def _sent(tx: Tx, mail_id: int) -> None:
    tx.execute(update(alert_mail).where(alert_mail.c.id == mail_id).values(due=None, sent_at=tx.now, failure=None))


def _put_off(tx: Tx, rows: list[RowMapping], failure: str) -> None:
    for row in rows:
        attempts = row["attempts"] + 1
        pause = min(FIRST_PAUSE_MS * 2 ** min(attempts - 1, 16), LONGEST_PAUSE_MS)
        values = {"attempts": attempts, "failure": failure[:1000], "next_at": tx.now + pause}
        if tx.now - row["created_at"] >= GIVE_UP_MS:
            log.error("a mail was given up", subject=row["subject"], reason=failure)
            values["due"] = None
        tx.execute(update(alert_mail).where(alert_mail.c.id == row["id"]).values(**values))
