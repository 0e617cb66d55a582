"""Guests as the API shows them: the keys of one page, then a lookup per related table, however long the page is."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pileus.server.auth.visibility import scope
from pileus.server.db.queries import vm as vms
from pileus.server.db.queries.page import Lookup
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import os_type, template
from pileus.server.db.tables.vm import instance_group, vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.network import GuestIpType
from pileus.server.domain.vm import VmState
from pileus.server.services.columns import Columns, Parts, looked_up
from pileus.server.services.paging import bounds

PRESENT = "present"
"""Value of the `state` filter for every guest that is not destroyed."""


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    account_name: str | None,
    domain_id: int | None,
    list_all: bool,
    is_recursive: bool,
    vm_id: int | None,
    vm_ids: Collection[int] | None,
    name: str | None,
    state: str | None,
    keyword: str | None,
    zone_id: int | None,
    pod_id: int | None,
    host_id: int | None,
    network_id: int | None,
    storage_id: int | None,
    template_id: int | None,
    service_offering_id: int | None,
    hypervisor: str | None,
    group: str | None,
    group_id: int | None,
    key_pair: str | None,
    for_virtual_network: bool | None,
    page: int | None,
    page_size: int | None,
) -> tuple[Columns, int]:
    """Guests that the caller asks for and may see; destroyed ones are shown to administrators only."""
    offset, limit = bounds(tx, page, page_size)
    by_id = vm_id is not None or vm_ids is not None
    allowed = scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=by_id,
        tx=tx,
    )
    wanted = {*(vm_ids or ()), *((vm_id,) if vm_id is not None else ())}
    found, count = vms.list_page(
        tx,
        allowed.where(vm.c.account_id, vm.c.domain_id),
        whose=allowed.name,
        see_destroyed=caller.is_admin,
        vm_ids=wanted if by_id else None,
        name=name,
        state=_state(state),
        keyword=keyword,
        zone_id=zone_id,
        pod_id=pod_id,
        host_id=host_id,
        network_id=network_id,
        storage_id=storage_id,
        template_id=template_id,
        service_offering_id=service_offering_id,
        hypervisor=hypervisor,
        group=group,
        group_id=group_id,
        key_pair=key_pair,
        for_virtual_network=for_virtual_network,
        offset=offset,
        limit=limit,
    )
    rows = vms.listed(tx, found, see_destroyed=caller.is_admin and _state(state) != PRESENT)
    return _views(tx, caller, rows), count


def view(tx: Tx, caller: Caller, vm_id: int) -> dict[str, Any]:
    """One guest, as lists show it; also one that is gone already, for the result of the job that removed it."""
    rows = vms.SHOWN.rows(tx, [vm_id])
    if not rows:
        raise LookupError(f"no virtual machine {vm_id}")
    return _views(tx, caller, rows).views()[0]


_zones = Lookup(zone.c.id, zone.c.uuid.label("zone_id"), zone.c.name.label("zone_name"))
_offerings = Lookup(
    service_offering.c.id,
    service_offering.c.uuid.label("service_offering_id"),
    service_offering.c.name.label("service_offering_name"),
    service_offering.c.cpus.label("cpu_number"),
    service_offering.c.cpu_mhz.label("cpu_speed"),
    service_offering.c.ram_mib.label("memory"),
)
_templates = Lookup(
    template.c.id,
    template.c.uuid.label("template_id"),
    template.c.name.label("template_name"),
    template.c.display_text.label("template_display_text"),
)
_os_types = Lookup(os_type.c.id, os_type.c.uuid.label("guest_os_id"), os_type.c.name.label("os_display_name"))
_groups = Lookup(instance_group.c.id, instance_group.c.uuid.label("group_id"), instance_group.c.name.label("group"))

_SAME = {"root_device_id": 0, "root_device_type": "ROOT", "security_group": [], "tags": [], "affinity_group": []}

_AS_THEY_ARE = ("id", "name", "display_name", "created", "state", "key_pair", "hypervisor", "account")
_FOR_ADMINISTRATORS = ("instance_name", "host_id", "host_name")


def _views(tx: Tx, caller: Caller, rows: Sequence[tuple[Any, ...]]) -> Columns:
    """Guests (rows of `vms.SHOWN`), in a fixed number of queries."""
    if not rows:
        return Columns((), {})
    keys, *values = zip(*rows, strict=True)
    of = dict(zip(vms.SHOWN.names, values, strict=True))
    cards = _Cards(tx, keys, inner=caller.is_admin)
    as_they_are = (*_AS_THEY_ARE, "domain_id", "domain", *(_FOR_ADMINISTRATORS if caller.is_admin else ()))
    fields = {
        **{name: of[name] for name in as_they_are},
        "ha_enable": [bool(each) for each in of["ha"]],
        "password_enabled": [bool(each) for each in of["password_enabled"]],
        "cpu_used": [None if each is None else f"{each:.2f}%" for each in of["cpu_used"]],
        "network_kbs_read": [None if each is None else each // 1024 for each in of["received_bytes"]],
        "network_kbs_write": [None if each is None else each // 1024 for each in of["sent_bytes"]],
        **looked_up(tx, _zones, of["zone_id"]),
        **looked_up(tx, _offerings, of["service_offering_id"]),
        **looked_up(tx, _templates, of["template_id"]),
        **looked_up(tx, _os_types, of["os_type_id"]),
        **looked_up(tx, _groups, of["group_id"]),
        **cards.told_of_guests(),
    }
    return Columns(keys, fields, same=_SAME, parts={"nic": cards.parts()})


def _state(text: str | None) -> str | None:
    if text is None or text.lower() == PRESENT:
        return None if text is None else PRESENT
    for state in VmState:
        if state.value.lower() == text.lower():
            return str(state)
    raise ParameterError(f"state must be one of {', '.join(VmState)}, {PRESENT}; got {text!r}", parameter="state")


class _Cards:
    """The cards of some guests, by guest and device, and what the default ones say of their guests."""

    def __init__(self, tx: Tx, guests: Sequence[int], *, inner: bool) -> None:
        rows = vms.CARDS.rows(tx, guests)
        # By guest and device, which are the first columns; the next is the UUID, which ends every comparison.
        rows.sort()
        owners, *values = zip(*rows, strict=True) if rows else [()] * (len(vms.CARDS.names) + 1)
        self._guests = guests
        self._inner = inner
        self._owners: Sequence[int] = owners
        self._each_has_one = tuple(guests) == owners
        """Nearly always."""
        self._of: Mapping[str, Sequence[Any]] = dict(zip(vms.CARDS.names, values, strict=True))

    def parts(self) -> Parts:
        """The cards as the API shows them."""
        of, same = self._of, ("id", "netmask", "gateway", "ip_address", "mac_address", "traffic_type", "type")
        fields = {
            **{name: of[name] for name in (*same, "network_id", "network_name")},
            "is_default": [bool(each) for each in of["is_default"]],
            "device_id": [str(each) for each in of["device_id"]],
        }
        if self._inner:
            uris = [
                None if vnet is None else f"{isolation}://{vnet}"
                for isolation, vnet in zip(of["isolation"], of["vnet"], strict=True)
            ]
            fields |= {"isolation_uri": uris, "broadcast_uri": uris}
        return Parts(Columns(self._owners, fields), self._counts())

    def _counts(self) -> Sequence[int]:
        if self._each_has_one:
            return (1,) * len(self._guests)
        counts = Counter(self._owners)
        return [counts[guest] for guest in self._guests]

    def told_of_guests(self) -> dict[str, Sequence[Any]]:
        """What the default card says of a guest; the first one, where none is the default."""
        if self._each_has_one:
            virtual = [None if kind is None else kind == GuestIpType.VIRTUAL for kind in self._of["type"]]
            return {"ip_address": self._of["ip_address"], "for_virtual_network": virtual}
        best: dict[int, int] = {}
        for place in reversed(range(len(self._owners))):
            guest = self._owners[place]
            if guest not in best or self._of["is_default"][place] or not self._of["is_default"][best[guest]]:
                best[guest] = place
        addresses, kinds = self._of["ip_address"], self._of["type"]
        places = [best.get(guest) for guest in self._guests]
        return {
            "ip_address": [None if place is None else addresses[place] for place in places],
            "for_virtual_network": [
                None if place is None or kinds[place] is None else kinds[place] == GuestIpType.VIRTUAL
                for place in places
            ],
        }
