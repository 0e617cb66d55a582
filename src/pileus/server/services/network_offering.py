"""Network offerings: what networks of a kind give their guests. Guide: "Default and Non-default Networks"."""

from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping

from pileus.server.config import keys, value
from pileus.server.db.queries import offering as offerings
from pileus.server.db.seed import DIRECT_NETWORK_OFFERING, VIRTUAL_NETWORK_OFFERING
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.ids import Id, NetworkOffering
from pileus.server.domain.network import Availability, GuestIpType
from pileus.server.events import record, types
from pileus.server.services.choice import one_of
from pileus.server.services.naming import checked_name, checked_text
from pileus.server.services.offering import FASTEST_MBPS
from pileus.server.services.paging import bounds
from pileus.wire.places import Traffic

MOST_CONNECTIONS = 1_000_000

_LIKE = {GuestIpType.VIRTUAL: VIRTUAL_NETWORK_OFFERING, GuestIpType.DIRECT: DIRECT_NETWORK_OFFERING}
"""The built-in offering of each kind: what its networks are served, all of that kind are."""


class TrafficType(StrEnum):
    """Traffic types of the API. All but guest traffic have built-in offerings only."""

    PUBLIC = "Public"
    MANAGEMENT = "Management"
    CONTROL = "Control"
    GUEST = "Guest"
    VLAN = "Vlan"
    STORAGE = "Storage"


def create(
    tx: Tx,
    caller: Caller,
    *,
    name: str,
    display_text: str,
    traffic_type: str,
    guest_ip_type: str,
    availability: str | None,
    specify_vlan: bool | None,
    rate_mbps: int | None,
    tags: str | None,
    max_connections: int | None,
) -> dict[str, Any]:
    """A new offering of guest networks. `specify_vlan` is what networks of Direct offerings always do.

    Errors (431): a name that an offering has or had, other traffic than Guest, numbers out of bounds.
    """
    _unused(tx, checked_name(name, "name"))
    if one_of(TrafficType, traffic_type, "traffictype") is not TrafficType.GUEST:
        raise ParameterError("only offerings of Guest traffic can be created", parameter="traffictype")
    kind = one_of(GuestIpType, guest_ip_type, "guestiptype")
    if kind is GuestIpType.DIRECT and specify_vlan is False:
        raise ParameterError("Direct networks are always tagged: specifyvlan must be true", parameter="specifyvlan")
    wanted = one_of(Availability, availability or Availability.OPTIONAL, "availability")
    offering_id = offerings.add(
        tx,
        offerings.NETWORK,
        name=name,
        display_text=checked_text(display_text, "displaytext"),
        traffic_type=str(TrafficType.GUEST),
        guest_ip_type=str(kind),
        availability=str(wanted),
        rate_mbps=_between(rate_mbps, 0, FASTEST_MBPS, "networkrate"),
        specify_vlan=int(kind is GuestIpType.DIRECT or bool(specify_vlan)),
        is_shared=int(kind is GuestIpType.DIRECT),
        services=offerings.network_services(tx, _LIKE[kind]),
        tags=_tags(tags),
        max_connections=_between(max_connections, 1, MOST_CONNECTIONS, "maxconnections"),
    )
    _record(tx, caller, types.NETWORK_OFFERING_CREATE, f"Network offering {name} was created", offering_id)
    return view(tx, caller, offering_id)


def update(
    tx: Tx,
    caller: Caller,
    *,
    offering_id: Id[NetworkOffering] | None,
    name: str | None,
    display_text: str | None,
    availability: str | None,
) -> dict[str, Any]:
    """Change the text of a network offering, or whether users must, may or cannot choose it.

    Deploys obey the availability of `DefaultVirtualizedNetwork`; of any other it says whether networks can be created.
    Errors (431): the name of a built-in offering, the availability of a system one, a used name.
    """
    if offering_id is None:
        raise ParameterError("id is required", parameter="id")
    row = offerings.by_id(tx, offerings.NETWORK, offering_id)
    changes: dict[str, Any] = {}
    if name is not None and name != row["name"]:
        if _built_in(row):
            raise ParameterError("the name of a built-in network offering cannot change", parameter="name")
        changes["name"] = _unused(tx, checked_name(name, "name"))
    if display_text is not None:
        changes["display_text"] = checked_text(display_text, "displaytext")
    if availability is not None:
        if row["is_system"]:
            raise ParameterError("the availability of a system offering cannot change", parameter="availability")
        wanted = one_of(Availability, availability, "availability")
        changes["availability"] = str(wanted)
    if changes:
        offerings.change(tx, offerings.NETWORK, offering_id, **changes)
    text = f"Network offering {changes.get('name', row['name'])} was changed"
    _record(tx, caller, types.NETWORK_OFFERING_EDIT, text, offering_id)
    return view(tx, caller, offering_id)


def delete(tx: Tx, caller: Caller, offering_id: Id[NetworkOffering]) -> None:
    """Stop offering it. Errors: a built-in offering (431), one that networks have (536)."""
    row = offerings.by_id(tx, offerings.NETWORK, offering_id)
    if _built_in(row):
        raise ParameterError(f"network offering {row['name']} is built in and cannot be deleted", parameter="id")
    if networks := offerings.networks_with(tx, offering_id):
        raise ResourceInUse(
            f"{networks} networks have network offering {row['name']}: delete them, or set its availability to"
            f" {Availability.UNAVAILABLE}"
        )
    offerings.change(tx, offerings.NETWORK, offering_id, live=None, removed_at=tx.now)
    _record(tx, caller, types.NETWORK_OFFERING_DELETE, f"Network offering {row['name']} was deleted", offering_id)


def list_page(
    tx: Tx, caller: Caller, *, offering_id: int | None, name: str | None, display_text: str | None,
    traffic_type: str | None, is_default: bool | None, specify_vlan: bool | None, is_shared: bool | None,
    availability: str | None, guest_ip_type: str | None, keyword: str | None, page: int | None, page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:  # fmt: skip
    """Network offerings; those of the system are for root administrators."""
    offset, limit = bounds(tx, page, page_size)
    equal = {
        "id": offering_id,
        "name": name,
        "display_text": display_text,
        "traffic_type": str(one_of(TrafficType, traffic_type, "traffictype")) if traffic_type else None,
        "is_default": None if is_default is None else int(is_default),
        "specify_vlan": None if specify_vlan is None else int(specify_vlan),
        "is_shared": None if is_shared is None else int(is_shared),
        "availability": str(one_of(Availability, availability, "availability")) if availability else None,
        "guest_ip_type": str(one_of(GuestIpType, guest_ip_type, "guestiptype")) if guest_ip_type else None,
        "is_system": None if caller.is_admin else 0,
    }
    rows, count = offerings.matching(
        tx, offerings.NETWORK, equal, given=None, keyword=keyword, offset=offset, limit=limit
    )
    general = value(tx, keys.network_throttling_rate)
    return [_view(row, general) for row in rows], count


def view(tx: Tx, caller: Caller, offering_id: int) -> dict[str, Any]:
    """One network offering, as lists show it."""
    return _view(offerings.by_id(tx, offerings.NETWORK, offering_id), value(tx, keys.network_throttling_rate))


def _view(row: RowMapping, general_mbps: int) -> dict[str, Any]:
    """`general_mbps` is the rate of networks whose offering sets none."""
    rate = row["rate_mbps"] if row["rate_mbps"] is not None or row["traffic_type"] != Traffic.GUEST else general_mbps
    return {
        "id": row["uuid"],
        "name": row["name"],
        "display_text": row["display_text"],
        "tags": row["tags"],
        "created": row["created_at"],
        "max_connections": row["max_connections"],
        "traffic_type": row["traffic_type"],
        "is_default": bool(row["is_default"]),
        "specify_vlan": bool(row["specify_vlan"]),
        "availability": row["availability"],
        "network_rate": rate,
        "guest_ip_type": row["guest_ip_type"],
        "state": "Enabled",
    }


def _built_in(row: RowMapping) -> bool:
    return bool(row["is_system"] or row["is_default"] or row["name"] in _LIKE.values())


def _unused(tx: Tx, name: str) -> str:
    if offerings.network_named(tx, name):
        raise ParameterError(f"a network offering named {name} exists or existed already", parameter="name")
    return name


def _between(number: int | None, least: int, most: int, parameter: str) -> int | None:
    if number is not None and not least <= number <= most:
        raise ParameterError(f"{parameter} must lie between {least} and {most}, got {number}", parameter=parameter)
    return number


def _tags(text: str | None) -> str | None:
    return ",".join(tag.strip() for tag in (text or "").split(",") if tag.strip()) or None


def _record(tx: Tx, caller: Caller, event: str, text: str, offering_id: int) -> None:
    record(
        tx,
        type=event,
        description=text,
        account_id=caller.account_id,
        domain_id=caller.domain_id,
        user_id=caller.user_id,
        resource_kind="NetworkOffering",
        resource_id=offering_id,
    )
