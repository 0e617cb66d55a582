"""Looks for what other servers of the farm began, on databases that carry no notices: SQLite, MySQL and MariaDB.

While others live it looks every fifth of a second, by three small queries, and gives the signals that notices would
have given. A server alone looks for nothing: its own signals reach it, and the slow polls remain.
"""

import threading
from collections.abc import Callable

import structlog
from sqlalchemy import func, select

from pileus.server.db.tables.host import host_operation
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database
from pileus.server.hosts import signal
from pileus.server.jobs import wakeup
from pileus.server.jobs.reconciler import triggered

log = structlog.get_logger(__name__)

LOOK_SECONDS = 0.2
_MOST = 1000
"""Operations under way that a look takes in. The slow poll of whoever holds the hosts finds what is beyond."""


class Lookout:
    """Looks while `in_company` says that others are there."""

    def __init__(
        self, database: Database, *, in_company: Callable[[], bool], look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._database = database
        self._in_company = in_company
        self._look_seconds = look_seconds
        self._known: set[int] = set()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="lookout", daemon=True)

    def start(self) -> None:
        """Begin to look, if this kind of database needs it."""
        if self._database.url.get_backend_name() != "postgresql":
            self._thread.start()

    def stop(self, *, seconds: float = 10.0) -> bool:
        """Look no more. False when the thread did not end in time."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _look_on(self) -> None:
        while not self._stopped.wait(self._look_seconds):
            try:
                if self._in_company():
                    self.look()
            except Exception:
                log.exception("lookout.failed")

    def look(self) -> None:
        """Look once, and signal what is there. An operation is told of once, a runnable job until it is taken."""
        pending = select(host_operation.c.id, host_operation.c.host_id).where(host_operation.c.pending == 1)
        with self._database.read() as tx:
            asked = {row["id"]: row["host_id"] for row in tx.all(pending.order_by(host_operation.c.id).limit(_MOST))}
            nearest = tx.scalar(select(func.min(job.c.wake_at)).where(job.c.open == 1))
            jobs = nearest is not None and nearest <= tx.now
            reconcilers = bool(triggered(tx))
        for host_id in {asked[key] for key in asked.keys() - self._known}:
            signal.announce_requested(host_id)
        self._known = set(asked)
        if jobs:
            wakeup.announce()
        if reconcilers:
            wakeup.announce_reconcilers()
