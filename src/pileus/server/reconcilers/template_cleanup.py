"""Invariant: a template lies on a pool only while volumes there need it, or may soon."""

from pileus.server.config import keys, value
from pileus.server.db.queries import template_on_pool
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs.reconciler import reconciler
from pileus.server.workflows.template_delete import CLEANUP, begin_eviction

SETTLE_MS = 60_000
"""A deleted template is left alone this long after its last use."""


@reconciler(CLEANUP, period_seconds=300)
def run(db: Database) -> None:
    """Remove deleted templates that no volume needs; and unused ones, where storage.template.cleanup says so.

    None at all while storage.cleanup.enabled is false.
    """
    db.run(_clean)


def _clean(tx: Tx) -> None:
    if not value(tx, keys.storage_cleanup_enabled):
        return
    for on_pool in template_on_pool.unneeded(tx, deleted=True):
        begin_eviction(tx, on_pool, used_before=tx.now - SETTLE_MS)
    if value(tx, keys.storage_template_cleanup_enabled):
        used_before = tx.now - value(tx, keys.storage_cleanup_interval) * 1000
        for on_pool in template_on_pool.unneeded(tx, deleted=False):
            begin_eviction(tx, on_pool, used_before=used_before)
