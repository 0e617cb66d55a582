"""Guests as the API shows them: one page of rows, then one lookup per related table, however long the page is."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import RowMapping

from pileus.server.auth.visibility import scope
from pileus.server.db.queries import vm as vms
from pileus.server.db.queries.page import grouped, related
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
    return views(tx, caller, [vms.by_id(tx, vm_id)])[0]


def views(tx: Tx, caller: Caller, rows: list[RowMapping]) -> list[dict[str, Any]]:
    """Many guests, in a fixed number of queries."""
    ids = [row["id"] for row in rows]
    cards = _cards(tx, ids)
    around = _Around(
        accounts=related(tx, account, (row["account_id"] for row in rows)),
        domains=related(tx, domain, (row["domain_id"] for row in rows)),
        zones=related(tx, zone, (row["zone_id"] for row in rows)),
        hosts=related(tx, host, (row["host_id"] for row in rows)),
        offerings=related(tx, service_offering, (row["service_offering_id"] for row in rows)),
        templates=related(tx, template, (row["template_id"] for row in rows)),
        os_types=related(tx, os_type, (row["os_type_id"] for row in rows)),
        networks=related(tx, network, (card["network_id"] for found in cards.values() for card in found)),
        groups=related(tx, instance_group, (row["group_id"] for row in rows)),
        stats=related(tx, vm_stats, ids, key=vm_stats.c.vm_id),
    )
    return [_view(row, cards[row["id"]], around, inner=caller.is_admin) for row in rows]


class _Around:
    """The related rows of a page, by key."""

    def __init__(self, **tables: dict[int, RowMapping]) -> None:
        self.tables = tables

    def get(self, table: str, key: int | None, column: str) -> Any:
        """A column of a related row, or None."""
        row = self.tables[table].get(key or 0)
        return None if row is None else row[column]


def _state(text: str | None) -> str | None:
    if text is None or text.lower() == PRESENT:
        return None if text is None else PRESENT
    for state in VmState:
        if state.value.lower() == text.lower():
            return str(state)
    raise ParameterError(f"state must be one of {', '.join(VmState)}, {PRESENT}; got {text!r}", parameter="state")


def _cards(tx: Tx, vm_ids: list[int]) -> dict[int, list[RowMapping]]:
    found = grouped(tx, nic, vm_ids, nic.c.vm_id)
    return {
        vm_id: sorted((card for card in cards if card["live"] == 1), key=lambda card: card["device_id"])
        for vm_id, cards in found.items()
    }


def _view(row: RowMapping, cards: list[RowMapping], around: _Around, *, inner: bool) -> dict[str, Any]:
    default = next((card for card in cards if card["is_default"]), cards[0] if cards else None)
    kind = around.get("networks", default["network_id"], "guest_ip_type") if default is not None else None
    found = {
        "id": row["uuid"],
        "name": row["name"],
        "display_name": row["display_name"],
        "account": around.get("accounts", row["account_id"], "name"),
        "domain_id": around.get("domains", row["domain_id"], "uuid"),
        "domain": around.get("domains", row["domain_id"], "name"),
        "created": row["created_at"],
        "state": row["state"],
        "ha_enable": bool(row["ha"]),
        "group": around.get("groups", row["group_id"], "name"),
        "group_id": around.get("groups", row["group_id"], "uuid"),
        "key_pair": row["key_pair"],
        "zone_id": around.get("zones", row["zone_id"], "uuid"),
        "zone_name": around.get("zones", row["zone_id"], "name"),
        "template_id": around.get("templates", row["template_id"], "uuid"),
        "template_name": around.get("templates", row["template_id"], "name"),
        "template_display_text": around.get("templates", row["template_id"], "display_text"),
        "password_enabled": bool(row["password_enabled"]),
        "service_offering_id": around.get("offerings", row["service_offering_id"], "uuid"),
        "service_offering_name": around.get("offerings", row["service_offering_id"], "name"),
        "cpu_number": around.get("offerings", row["service_offering_id"], "cpus"),
        "cpu_speed": around.get("offerings", row["service_offering_id"], "cpu_mhz"),
        "memory": around.get("offerings", row["service_offering_id"], "ram_mib"),
        "guest_os_id": around.get("os_types", row["os_type_id"], "uuid"),
        "os_display_name": around.get("os_types", row["os_type_id"], "name"),
        "root_device_id": 0,
        "root_device_type": "ROOT",
        "security_group": [],
        "tags": [],
        "affinity_group": [],
        "nic": [_nic(card, around, inner=inner) for card in cards],
        "ip_address": default["ip"] if default is not None else None,
        "for_virtual_network": kind == GuestIpType.VIRTUAL if kind is not None else None,
        "hypervisor": row["hypervisor"],
    }
    found |= _load(row, around)
    if inner:
        found |= {
            "instance_name": row["instance_name"],
            "host_id": around.get("hosts", row["host_id"], "uuid"),
            "host_name": around.get("hosts", row["host_id"], "name"),
        }
    return found


def _load(row: RowMapping, around: _Around) -> dict[str, Any]:
    if row["state"] != VmState.RUNNING or around.get("stats", row["id"], "vm_id") is None:
        return {}
    return {
        "cpu_used": f"{around.get('stats', row['id'], 'cpu_used'):.2f}%",
        "network_kbs_read": around.get("stats", row["id"], "received_bytes") // 1024,
        "network_kbs_write": around.get("stats", row["id"], "sent_bytes") // 1024,
    }


def _nic(card: RowMapping, around: _Around, *, inner: bool) -> dict[str, Any]:
    found = {
        "id": card["uuid"],
        "network_id": around.get("networks", card["network_id"], "uuid"),
        "network_name": around.get("networks", card["network_id"], "name"),
        "netmask": card["netmask"],
        "gateway": card["gateway"],
        "ip_address": card["ip"],
        "mac_address": card["mac"],
        "is_default": bool(card["is_default"]),
        "device_id": str(card["device_id"]),
        "traffic_type": card["traffic_type"],
        "type": around.get("networks", card["network_id"], "guest_ip_type"),
    }
    vnet = around.get("networks", card["network_id"], "vnet")
    if inner and vnet is not None:
        uri = f"{around.get('networks', card['network_id'], 'isolation')}://{vnet}"
        found |= {"isolation_uri": uri, "broadcast_uri": uri}
    return found
