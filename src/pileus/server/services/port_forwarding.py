"""Port forwarding rules. Guide: "IP Forwarding and Firewalling"."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, select, update

from pileus.server.auth.visibility import require
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.queries.rule import PORT_FORWARDING
from pileus.server.db.tables.network import nic, port_forwarding_rule, public_ip
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.network import Protocol, RuleState
from pileus.server.services import rule as rules
from pileus.server.services.paging import bounds
from pileus.server.services.rule import Asked

PROTOCOLS = (Protocol.TCP, Protocol.UDP)


def create(
    tx: Tx,
    caller: Caller,
    *,
    public_ip_id: int,
    vm_id: int,
    protocol: str,
    public_port: int,
    public_end_port: int | None,
    private_port: int,
    private_end_port: int | None,
    cidrs: Sequence[str],
    open_firewall: bool,
) -> tuple[str, str]:
    """Forward ports of an address to a guest on its network. Returns job and rule (UUIDs).

    Errors: ports or protocol out of range, a guest that is not on the network (431), overlap with a rule (537).
    """
    kind = rules.protocol_of(protocol, PROTOCOLS)
    outside = rules.ports_of(public_port, public_end_port, "publicport", "publicendport")
    inside = rules.ports_of(private_port, private_end_port, "privateport", "privateendport")
    if outside.last - outside.first != inside.last - inside.first:
        raise ParameterError("public and private port ranges must have the same length", parameter="privateendport")
    sources = rules.wants_opening(cidrs, open_firewall)
    held, net = rules.address_of(tx, caller, public_ip_id)
    rules.refuse_whole(held)
    rules.guest_of(tx, held, net, vm_id)
    rules.refuse_taken(tx, held, kind, outside)
    rule_id = rules.add(
        tx,
        PORT_FORWARDING,
        held,
        net,
        vm_id=vm_id,
        protocol=str(kind),
        public_start=outside.first,
        public_end=outside.last,
        private_start=inside.first,
        private_end=inside.last,
    )
    rules.open_firewall(tx, PORT_FORWARDING, rule_id, held, net, protocol=kind, ports=outside, sources=sources)
    text = f"port forwarding rule {held.ip}:{outside.first}/{kind}"
    return rules.created(tx, caller, PORT_FORWARDING, net, rule_id, command="createPortForwardingRule", text=text)


def change(
    tx: Tx,
    caller: Caller,
    *,
    public_ip_id: int,
    protocol: str,
    public_port: int,
    private_port: int,
    private_ip: str | None,
    vm_id: int | None,
) -> str:
    """Lead the rule that begins at a public port to another port or guest; the job's UUID.

    The guest is named by its key or by its address on the network. Errors: no such rule, ports out of range (431).
    """
    kind = rules.protocol_of(protocol, PROTOCOLS)
    held, net = rules.address_of(tx, caller, public_ip_id)
    table = port_forwarding_rule.c
    at = (table.public_ip_id == held.id, table.protocol == str(kind), table.public_start == public_port)
    row = tx.one(select(port_forwarding_rule).where(table.live == 1, *at))
    if row is None:
        raise ParameterError(f"no {kind} rule of {held.ip} begins at port {public_port}", parameter="publicport")
    require(tx, caller, row["account_id"], row["domain_id"], "the rule")
    if row["state"] == RuleState.REVOKE:
        raise ResourceInUse("the rule is being removed")
    inside = rules.ports_of(
        private_port, private_port + row["public_end"] - row["public_start"], "privateport", "privateport"
    )
    if private_ip is not None:
        vm_id = _guest_at(tx, net.id, private_ip, vm_id)
    guest = row["vm_id"] if vm_id is None else vm_id
    rules.guest_of(tx, held, net, guest)
    values = {"vm_id": guest, "private_start": inside.first, "private_end": inside.last}
    tx.execute(update(port_forwarding_rule).where(table.id == row["id"]).values(values))
    return rules.changed(tx, caller, PORT_FORWARDING, row, command="updatePortForwardingRule", names=tuple(values))


def delete(tx: Tx, caller: Caller, rule_id: int) -> str:
    """Remove a rule; the job's UUID."""
    return rules.delete(tx, caller, PORT_FORWARDING, rule_id, command="deletePortForwardingRule")


def list_page(
    tx: Tx, caller: Caller, asked: Asked, *, keyword: str | None, page_number: int | None, page_size: int | None
) -> tuple[list[dict[str, Any]], int]:
    """Rules within the bounds of the call."""
    offset, limit = bounds(tx, page_number, page_size)
    where = rules.conditions(tx, caller, PORT_FORWARDING, asked)
    if keyword:
        where.append(like(port_forwarding_rule.c.protocol, keyword))
    rows, count = page(tx, port_forwarding_rule, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, rule_id: int) -> dict[str, Any]:
    """One rule, as lists show it."""
    return _views(tx, [rules.by_id(tx, PORT_FORWARDING, rule_id)])[0]


def _guest_at(tx: Tx, network_id: int, ip: str, vm_id: int | None) -> int:
    card = tx.one(select(nic.c.vm_id).where(nic.c.network_id == network_id, nic.c.ip == ip, nic.c.live == 1))
    if card is None:
        raise ParameterError(f"no virtual machine has address {ip} on the network", parameter="privateip")
    if vm_id not in (None, card["vm_id"]):
        raise ParameterError(f"{ip} is not the address of that virtual machine", parameter="privateip")
    return int(card["vm_id"])


def _views(tx: Tx, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    addresses = related(tx, public_ip, (row["public_ip_id"] for row in rows))
    guests = related(tx, vm, (row["vm_id"] for row in rows))
    opened = rules.opened_for(tx, PORT_FORWARDING, {row["id"] for row in rows})
    cards = {
        (row["vm_id"], row["network_id"]): row["ip"]
        for row in tx.all(
            select(nic.c.vm_id, nic.c.network_id, nic.c.ip).where(
                nic.c.live == 1, nic.c.vm_id.in_({row["vm_id"] for row in rows})
            )
        )
    }
    return [
        {
            "id": row["uuid"],
            "protocol": row["protocol"],
            "public_port": str(row["public_start"]),
            "public_end_port": str(row["public_end"]),
            "private_port": str(row["private_start"]),
            "private_end_port": str(row["private_end"]),
            "virtual_machine_id": guests[row["vm_id"]]["uuid"],
            "virtual_machine_name": guests[row["vm_id"]]["name"],
            "virtual_machine_display_name": guests[row["vm_id"]]["display_name"],
            "ip_address_id": addresses[row["public_ip_id"]]["uuid"],
            "ip_address": addresses[row["public_ip_id"]]["address"],
            "vm_guest_ip": cards.get((row["vm_id"], row["network_id"])),
            "cidr_list": opened.get(row["id"]),
            "state": row["state"],
        }
        for row in rows
    ]
