"""Static NAT: addresses that belong to one guest whole, and the ports of them that are open."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, select

from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.queries.rule import IP_FORWARDING, revoke
from pileus.server.db.tables.network import public_ip, vlan_ip_range
from pileus.server.db.tables.rule import ip_forwarding_rule
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.network import Protocol
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.events.write import COMPLETED, SCHEDULED
from pileus.server.jobs.submit import submit
from pileus.server.services import rule as rules
from pileus.server.services.paging import bounds
from pileus.server.services.rule import DEADLINE_SECONDS, Asked
from pileus.server.workflows.static_nat import static_nat_disable

PROTOCOLS = (Protocol.TCP, Protocol.UDP)
ADDRESS_KIND = "IpAddress"


def enable(tx: Tx, caller: Caller, *, public_ip_id: int, vm_id: int) -> None:
    """Map an address to one guest whole, both ways; its router is told at once.

    Errors: a source NAT address, one that has rules (431); a guest that has such an address of the network (536).
    """
    held, net = rules.address_of(tx, caller, public_ip_id)
    if held.is_source_nat:
        raise ParameterError("a source NAT address serves the whole network", parameter="ipaddressid")
    guest = rules.guest_of(tx, held, net, vm_id)
    if held.is_static_nat and held.vm_id == vm_id:
        return
    rules.refuse_whole(held)
    there = rules.rules_at(tx, held.id)
    if there:
        raise ParameterError(f"the address has {', '.join(there)}: delete that first", parameter="ipaddressid")
    virtual = select(vlan_ip_range.c.id).where(vlan_ip_range.c.for_virtual_network == 1)
    others = select(public_ip.c.address).where(
        public_ip.c.vm_id == vm_id, public_ip.c.network_id == net.id, public_ip.c.range_id.in_(virtual)
    )
    other = tx.scalar(others.limit(1))
    if other is not None:
        raise ResourceInUse(f"virtual machine {guest['name']} has address {other} of the network whole already")
    public_ips.give_whole(tx, held.id, vm_id, in_force=True)
    virtual_router.changed(tx, net.id)
    _tell(tx, caller, net, held.id, types.STATICNAT_ENABLE, f"Enabled static NAT of {held.ip} to {guest['name']}")


def disable(tx: Tx, caller: Caller, public_ip_id: int) -> str:
    """End the mapping of an address with its rules; the job's UUID."""
    held, net = rules.address_of(tx, caller, public_ip_id)
    if held.vm_id is None:
        raise ParameterError(f"address {held.ip} has no static NAT", parameter="ipaddressid")
    if not held.is_static_nat:
        raise ResourceInUse(f"static NAT of {held.ip} is being disabled already")
    mine = (ip_forwarding_rule.c.public_ip_id == held.id, ip_forwarding_rule.c.live == 1)
    going = [
        rule_id
        for rule_id in tx.execute(select(ip_forwarding_rule.c.id).where(*mine)).scalars().all()
        if revoke(tx, IP_FORWARDING, rule_id)
    ]
    public_ips.give_whole(tx, held.id, held.vm_id, in_force=False)
    generation = virtual_router.changed(tx, net.id)
    plan = static_nat_disable(network=net.id, address=held.id, vm=held.vm_id, of_rules=going, generation=generation)
    text = f"Disabling static NAT of address {held.ip}"
    started = _tell(tx, caller, net, held.id, types.STATICNAT_DISABLE, text, state=SCHEDULED)
    job = submit(
        tx,
        plan,
        Owner(net.account_id, net.domain_id, caller.user_id),
        command="disableStaticNat",
        instance_kind=ADDRESS_KIND,
        instance_id=held.id,
        resource_key=f"ip:{held.id}",
        deadline_seconds=DEADLINE_SECONDS,
        start_event_id=started,
    )
    return job.uuid


def create(
    tx: Tx,
    caller: Caller,
    *,
    public_ip_id: int,
    protocol: str,
    start_port: int,
    end_port: int | None,
    cidrs: Sequence[str],
    open_firewall: bool,
) -> tuple[str, str]:
    """Open ports of an address that belongs to one guest whole. Returns job and rule (UUIDs).

    Errors: ports or protocol out of range, an address without static NAT (431), overlap with a rule (537).
    """
    kind = rules.protocol_of(protocol, PROTOCOLS)
    ports = rules.ports_of(start_port, end_port, "startport", "endport")
    sources = rules.wants_opening(cidrs, open_firewall)
    held, net = rules.address_of(tx, caller, public_ip_id)
    if not held.is_static_nat or held.vm_id is None:
        raise ParameterError(f"address {held.ip} has no static NAT: enable it first", parameter="ipaddressid")
    rules.refuse_taken(tx, held, kind, ports)
    rule_id = rules.add(
        tx,
        IP_FORWARDING,
        held,
        net,
        vm_id=held.vm_id,
        protocol=str(kind),
        start_port=ports.first,
        end_port=ports.last,
    )
    rules.open_firewall(tx, IP_FORWARDING, rule_id, held, net, protocol=kind, ports=ports, sources=sources)
    text = f"IP forwarding rule {held.ip}:{ports.first}/{kind}"
    return rules.created(tx, caller, IP_FORWARDING, net, rule_id, command="createIpForwardingRule", text=text)


def delete(tx: Tx, caller: Caller, rule_id: int) -> str:
    """Remove a rule; the job's UUID."""
    return rules.delete(tx, caller, IP_FORWARDING, rule_id, command="deleteIpForwardingRule")


def list_page(
    tx: Tx,
    caller: Caller,
    asked: Asked,
    *,
    vm_id: int | None,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Rules within the bounds of the call."""
    offset, limit = bounds(tx, page_number, page_size)
    where = rules.conditions(tx, caller, IP_FORWARDING, asked)
    if vm_id is not None:
        where.append(ip_forwarding_rule.c.vm_id == vm_id)
    if keyword:
        where.append(like(ip_forwarding_rule.c.protocol, keyword))
    rows, count = page(tx, ip_forwarding_rule, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, rule_id: int) -> dict[str, Any]:
    """One rule, as lists show it."""
    return _views(tx, [rules.by_id(tx, IP_FORWARDING, rule_id)])[0]


def _tell(tx: Tx, caller: Caller, net: Any, public_ip_id: int, type: str, text: str, *, state: str = COMPLETED) -> int:
    return record(
        tx,
        type=type,
        description=text,
        account_id=net.account_id,
        domain_id=net.domain_id,
        user_id=caller.user_id,
        state=state,
        resource_kind=ADDRESS_KIND,
        resource_id=public_ip_id,
        zone_id=net.zone_id,
    )


def _views(tx: Tx, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    addresses = related(tx, public_ip, (row["public_ip_id"] for row in rows))
    guests = related(tx, vm, (row["vm_id"] for row in rows))
    opened = rules.opened_for(tx, IP_FORWARDING, {row["id"] for row in rows})
    return [
        {
            "id": row["uuid"],
            "protocol": row["protocol"],
            # The address is the guest's whole, so ports are the same on both sides.
            "public_port": str(row["start_port"]),
            "public_end_port": str(row["end_port"]),
            "private_port": str(row["start_port"]),
            "private_end_port": str(row["end_port"]),
            "virtual_machine_id": guests[row["vm_id"]]["uuid"],
            "virtual_machine_name": guests[row["vm_id"]]["name"],
            "virtual_machine_display_name": guests[row["vm_id"]]["display_name"],
            "ip_address_id": addresses[row["public_ip_id"]]["uuid"],
            "ip_address": addresses[row["public_ip_id"]]["address"],
            "cidr_list": opened.get(row["id"]),
            "state": row["state"],
        }
        for row in rows
    ]
