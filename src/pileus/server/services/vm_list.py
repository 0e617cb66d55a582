"""Guests as the API shows them: one page of rows, then one lookup per related table, however long the page is."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from pileus.server.auth.visibility import scope
from pileus.server.db.queries import vm as vms
from pileus.server.db.queries.page import AnyRow, Lookup
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.host import host
from pileus.server.db.tables.network import network, nic
from pileus.server.db.tables.offering import service_offering
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.template import os_type, template
from pileus.server.db.tables.vm import instance_group, vm, vm_stats
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError
from pileus.server.domain.network import GuestIpType
from pileus.server.domain.vm import VmState
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
) -> tuple[list[dict[str, Any]], int]:
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
    rows, count = vms.list_page(
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
    return views(tx, caller, rows), count


def view(tx: Tx, caller: Caller, vm_id: int) -> dict[str, Any]:
    """One guest, as lists show it; also one that is gone already, for the result of the job that removed it."""
    return views(tx, caller, [vms.shown(tx, vm_id)])[0]


_accounts = Lookup(account, "name")
_domains = Lookup(domain, "uuid", "name")
_zones = Lookup(zone, "uuid", "name")
_hosts = Lookup(host, "uuid", "name")
_offerings = Lookup(service_offering, "uuid", "name", "cpus", "cpu_mhz", "ram_mib")
_templates = Lookup(template, "uuid", "name", "display_text")
_os_types = Lookup(os_type, "uuid", "name")
_networks = Lookup(network, "uuid", "name", "guest_ip_type", "vnet", "isolation")
_groups = Lookup(instance_group, "name", "uuid")
_stats = Lookup(vm_stats, "cpu_used", "received_bytes", "sent_bytes", key="vm_id")
_cards = Lookup(
    nic,
    *("uuid", "network_id", "netmask", "gateway", "ip", "mac", "is_default", "device_id", "traffic_type"),
    key="vm_id",
    where=(nic.c.live == 1,),
)

_SAME = {"root_device_id": 0, "root_device_type": "ROOT", "security_group": [], "tags": [], "affinity_group": []}
"""What is said of every guest alike."""

Parts = Mapping[Any, Mapping[str, Any]]
"""What the rows of a related table add to a view, by key; the same part goes into every view that needs it."""


def views(tx: Tx, caller: Caller, rows: Sequence[AnyRow]) -> list[dict[str, Any]]:
    """Many guests (rows of `vms.SHOWN`), in a fixed number of queries."""
    inner = caller.is_admin
    cards = _cards.grouped(tx, (row.id for row in rows))
    networks = _network_parts(tx, cards, inner=inner)
    accounts = _parts(tx, _accounts, (row.account_id for row in rows), "account")
    domains = _parts(tx, _domains, (row.domain_id for row in rows), "domain_id", "domain")
    zones = _parts(tx, _zones, (row.zone_id for row in rows), "zone_id", "zone_name")
    groups = _parts(tx, _groups, (row.group_id for row in rows), "group", "group_id")
    hosts = _parts(tx, _hosts, (row.host_id for row in rows), "host_id", "host_name") if inner else {}
    os_types = _parts(tx, _os_types, (row.os_type_id for row in rows), "guest_os_id", "os_display_name")
    sizes = ("service_offering_id", "service_offering_name", "cpu_number", "cpu_speed", "memory")
    offerings = _parts(tx, _offerings, (row.service_offering_id for row in rows), *sizes)
    names = ("template_id", "template_name", "template_display_text")
    templates = _parts(tx, _templates, (row.template_id for row in rows), *names)
    loads = _load_parts(tx, [row.id for row in rows if row.state == VmState.RUNNING])
    found = []
    nothing: Mapping[str, Any] = {}
    for row in rows:
        (vm_id, uuid, instance_name, name, display_name, account_id, domain_id, zone_id, state) = row[:9]
        (offering_id, template_id, os_type_id, hypervisor, host_id, group_id, key_pair) = row[9:16]
        (ha, password_enabled, created_at) = row[16:19]
        view = {
            "id": uuid,
            "name": name,
            "display_name": display_name,
            "created": created_at,
            "state": state,
            "ha_enable": bool(ha),
            "key_pair": key_pair,
            "password_enabled": bool(password_enabled),
            "hypervisor": hypervisor,
            **accounts[account_id],
            **domains[domain_id],
            **zones[zone_id],
            **offerings[offering_id],
            **templates.get(template_id, nothing),
            **os_types.get(os_type_id, nothing),
            **groups.get(group_id, nothing),
            **loads.get(vm_id, nothing),
            **_SAME,
            **_nics(cards.get(vm_id, ()), networks),
        }
        if inner:
            view |= {"instance_name": instance_name, **hosts.get(host_id, nothing)}
        found.append(view)
    return found


def _state(text: str | None) -> str | None:
    if text is None or text.lower() == PRESENT:
        return None if text is None else PRESENT
    for state in VmState:
        if state.value.lower() == text.lower():
            return str(state)
    raise ParameterError(f"state must be one of {', '.join(VmState)}, {PRESENT}; got {text!r}", parameter="state")


def _parts(tx: Tx, lookup: Lookup, keys: Iterable[int | None], *names: str) -> Parts:
    return {key: dict(zip(names, row, strict=True)) for key, *row in lookup.rows(tx, keys)}


def _load_parts(tx: Tx, running: list[int]) -> Parts:
    return {
        vm_id: {
            "cpu_used": f"{cpu_used:.2f}%",
            "network_kbs_read": received_bytes // 1024,
            "network_kbs_write": sent_bytes // 1024,
        }
        for vm_id, cpu_used, received_bytes, sent_bytes in _stats.rows(tx, running)
    }


def _network_parts(tx: Tx, cards: Mapping[int, Sequence[AnyRow]], *, inner: bool) -> Parts:
    found = {}
    used = {card.network_id for each in cards.values() for card in each}
    for key, uuid, name, kind, vnet, isolation in _networks.rows(tx, used):
        part = {"network_id": uuid, "network_name": name, "type": kind}
        if inner and vnet is not None:
            uri = f"{isolation}://{vnet}"
            part |= {"isolation_uri": uri, "broadcast_uri": uri}
        found[key] = part
    return found


def _nics(cards: Sequence[AnyRow], networks: Parts) -> dict[str, Any]:
    """The cards in order of their devices, and what the default one says of the guest."""
    if not cards:
        return {"nic": []}
    if len(cards) > 1:
        cards = sorted(cards, key=lambda card: int(card.device_id))
    shown = []
    first: dict[str, Any] | None = None
    for _, uuid, network_id, netmask, gateway, ip, mac, is_default, device_id, traffic_type in cards:
        card = {
            "id": uuid,
            "netmask": netmask,
            "gateway": gateway,
            "ip_address": ip,
            "mac_address": mac,
            "is_default": bool(is_default),
            "device_id": str(device_id),
            "traffic_type": traffic_type,
            **networks[network_id],
        }
        shown.append(card)
        if is_default and first is None:
            first = card
    first = first or shown[0]
    virtual = first["type"] == GuestIpType.VIRTUAL if first["type"] is not None else None
    return {"nic": shown, "ip_address": first["ip_address"], "for_virtual_network": virtual}
