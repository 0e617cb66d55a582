"""The template that virtual routers boot from where they are virtual machines, named by a setting."""

from pileus.server.auth.visibility import resolve
from pileus.server.config import keys, value
from pileus.server.db.queries import template as templates
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.ids import Template
from pileus.server.domain.storage import SYSTEM_TEMPLATE, USER_TEMPLATE


def become(tx: Tx, caller: Caller, named: str | None) -> str | None:
    """Make a template the system's, by its id or UUID, and the one before an ordinary one; what is to be stored.

    None or "" for no system template. 431 for a template that is not there or that everybody may use.
    """
    wanted = None
    if named:
        wanted = templates.row(tx, resolve(tx, caller, Template, named, "value"))
        if wanted["is_public"]:
            # Guests that have been made from it would go on being made from it.
            text = f"template {wanted['name']} is public: register the system template as a private one"
            raise ParameterError(text, parameter="value")
    before = templates.live(tx, value(tx, keys.router_template_id))
    if before is not None:
        templates.change(tx, before["id"], type=USER_TEMPLATE)
    if wanted is None:
        return None
    templates.change(tx, wanted["id"], type=SYSTEM_TEMPLATE)
    return str(wanted["uuid"])
