"""Invariant: every template is, or is coming, wherever it belongs: also in zones and storage that came later."""

from pileus.server.db.queries import template as templates
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs.reconciler import reconciler
from pileus.server.workflows.template_delete import begin_removal
from pileus.server.workflows.template_download import WAITING, begin


@reconciler("template-download", period_seconds=60)
def run(db: Database) -> None:
    """Begin the downloads that wait for secondary storage or for their next attempt; finish removals."""
    db.run(_go_on)


def _go_on(tx: Tx) -> None:
    for template_id, zone_id in templates.zones_missing(tx):
        name = templates.file_name(tx, template_id)
        templates.copy_there(tx, template_id, zone_id, name=name, status=WAITING)
    for copy in templates.waiting_copies(tx):
        begin(tx, copy)
    for copy in templates.forgotten_removals(tx):
        begin_removal(tx, copy)
