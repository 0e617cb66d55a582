"""Where a zone's routers live: in a network namespace of a host, or in a virtual machine from the system template.

A detail of the zone says so, and the setting of the same name where it has none. What is decided when a life of a
router is placed stands in `vm.template_id`; a change is in force at the router's next start.
"""

from pileus.server.config import keys, value
from pileus.server.db.queries import template as templates
from pileus.server.db.queries import zone_detail
from pileus.server.db.transaction import Tx
from pileus.server.domain.errors import ParameterError, ResourceUnavailable
from pileus.server.domain.storage import SYSTEM_TEMPLATE
from pileus.wire.operations import RouterMachine

VM = "vm"
LEAST_RAM_MIB = 128
"""What a machine needs to boot from the system template; the built-in offering has less, which suits a namespace."""


def is_vm(tx: Tx, zone_id: int) -> bool:
    """Whether routers of the zone that start now are virtual machines."""
    own = zone_detail.of(tx, zone_id, keys.router_launcher.name)
    return (own or value(tx, keys.router_launcher)) == VM


def choose(tx: Tx, zone_id: int, launcher: str | None) -> None:
    """Give the zone a choice of its own; None or "" for what the setting says. 431 for what cannot be."""
    if launcher:
        try:
            keys.router_launcher.read(launcher)
        except ParameterError as error:
            raise ParameterError(str(error), parameter="details") from None
        if launcher == VM and system_template(tx) is None:
            text = f"routers can be a vm once {keys.router_template_id.name} names the system template"
            raise ParameterError(text, parameter="details")
    zone_detail.put(tx, zone_id, keys.router_launcher.name, launcher or None)


def system_template(tx: Tx) -> int | None:
    """The key of the template that router.template.id names, while it is there."""
    named = value(tx, keys.router_template_id)
    row = templates.live(tx, named) if named else None
    return int(row["id"]) if row is not None and row["type"] == SYSTEM_TEMPLATE else None


def template_for(tx: Tx, zone_id: int) -> int | None:
    """The template a router that starts in the zone boots from; None for a namespace.

    `ResourceUnavailable` when it should be a virtual machine and there is no system template.
    """
    if not is_vm(tx, zone_id):
        return None
    found = system_template(tx)
    if found is None:
        raise ResourceUnavailable(f"{keys.router_template_id.name} names no template, which routers of this zone need")
    return found


def ram_mib(offered_mib: int, template_id: int | None) -> int:
    """Memory that a life of a router has, in MiB."""
    return offered_mib if template_id is None else max(offered_mib, LEAST_RAM_MIB)


def machine(tx: Tx, zone_id: int, template_id: int | None) -> RouterMachine | None:
    """What a host must know to boot it. `ResourceUnavailable` while the zone's secondary storage does not hold it."""
    if template_id is None:
        return None
    copy = templates.copy_in(tx, template_id, zone_id)
    if copy is None or copy.url is None or copy.sha256 is None:
        raise ResourceUnavailable("the system template is not ready on the secondary storage of this zone")
    return RouterMachine(copy.url, copy.sha256)
