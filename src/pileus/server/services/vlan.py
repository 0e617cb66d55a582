"""VLANs of a zone: each belongs to the zone's range, to one network that specified it, or to public addresses."""

from sqlalchemy import RowMapping

from pileus.server.db.queries import vlan as vlans
from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import ParameterError
from pileus.wire.places import Isolation

HIGHEST_VLAN = 4094


def vlan_id(text: str) -> int:
    """A VLAN id of one network ("100", also "vlan://100")."""
    digits = text.strip().lower().removeprefix("vlan://")
    fine = digits.isascii() and digits.isdecimal() and len(digits) < 8
    if not fine or not 1 <= int(digits) <= HIGHEST_VLAN:
        raise ParameterError(f"vlan must be a number from 1 to {HIGHEST_VLAN}, got {text!r}", parameter="vlan")
    return int(digits)


def refuse_taken(tx: Tx, here: RowMapping, tag: int, *, public: bool) -> None:
    """431 when the VLAN is in use in the zone. With `public` it is wanted for public addresses, which share theirs.

    The zone's VLANs must be held (`db.queries.vlan.hold`). VXLAN networks use no VLANs, so their range takes none.
    """
    if here["isolation"] == Isolation.VLAN and vlans.in_zone_range(tx, here["id"], tag):
        raise ParameterError(f"VLAN {tag} belongs to the zone's range for virtual networks", parameter="vlan")
    if (name := vlans.network_on(tx, here["id"], tag)) is not None:
        raise ParameterError(f"VLAN {tag} is in use by network {name}", parameter="vlan")
    if not public and vlans.has_public(tx, here["id"], tag):
        raise ParameterError(f"VLAN {tag} is in use by public addresses of the zone", parameter="vlan")
