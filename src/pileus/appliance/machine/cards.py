"""The machine's network cards under the names that the guide gives them, whatever order they were found in."""

from collections.abc import Mapping

import msgspec

from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.programs import run

GUEST, PUBLIC = "eth0", "eth2"


class _Link(msgspec.Struct):
    ifname: str
    address: str = ""


async def name(wanted: Mapping[str, str]) -> None:
    """Give the cards with these addresses these names. Raises StepFailed when a card is not there."""
    links = msgspec.json.decode(await run("ip", "-j", "link", "show"), type=list[_Link])
    found = {link.address: link.ifname for link in links}
    if absent := sorted(set(wanted) - set(found)):
        raise StepFailed(f"the machine has no card {', '.join(absent)}")
    moves = {found[mac]: new for mac, new in wanted.items() if found[mac] != new}
    # By way of names that nobody has: two cards may have each other's.
    aside = [f"link set dev {old} down name aside{number}" for number, old in enumerate(moves)]
    settled = [f"link set dev aside{number} name {new}" for number, new in enumerate(moves.values())]
    if moves:
        await run("ip", "-batch", "-", stdin="\n".join([*aside, *settled, ""]))
