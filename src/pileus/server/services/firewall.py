"""Firewall rules of public addresses: who may open new connections to them. Guide: "IP Forwarding and Firewalling"."""

from collections.abc import Sequence
from ipaddress import IPv4Network
from typing import Any

from sqlalchemy import RowMapping, select

from pileus.server.db.queries.page import like, page, related
from pileus.server.db.queries.public_ip import Address
from pileus.server.db.queries.rule import FIREWALL
from pileus.server.db.tables.network import public_ip
from pileus.server.db.tables.rule import firewall_rule
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller
from pileus.server.domain.errors import ParameterError, RuleConflict
from pileus.server.domain.network import Protocol
from pileus.server.services import rule as rules
from pileus.server.services.paging import bounds
from pileus.server.services.rule import Asked, Ports

HIGHEST_ICMP = 255


def create(
    tx: Tx,
    caller: Caller,
    *,
    public_ip_id: int,
    protocol: str,
    start_port: int | None,
    end_port: int | None,
    icmp_type: int | None,
    icmp_code: int | None,
    cidrs: Sequence[str],
) -> tuple[str, str]:
    """Let networks in at ports, or ICMP messages of a kind. Returns job and rule (UUIDs).

    Errors: ports with icmp or without (431), overlap with a rule for one of the networks (537).
    """
    kind = rules.protocol_of(protocol, tuple(Protocol))
    if kind is Protocol.ICMP:
        _refuse_given("startport", start_port, kind)
        _refuse_given("endport", end_port, kind)
        ports, icmp = None, _icmp(icmp_type, icmp_code)
    else:
        _refuse_given("icmptype", icmp_type, kind)
        _refuse_given("icmpcode", icmp_code, kind)
        if start_port is None:
            raise ParameterError(f"a rule for {kind} has a startport", parameter="startport")
        ports, icmp = rules.ports_of(start_port, end_port, "startport", "endport"), (None, None)
    sources = rules.sources_of(cidrs)
    held, net = rules.address_of(tx, caller, public_ip_id)
    _refuse_overlap(tx, held, kind, ports, icmp, sources)
    rule_id = rules.add(
        tx,
        FIREWALL,
        held,
        net,
        protocol=str(kind),
        start_port=ports and ports.first,
        end_port=ports and ports.last,
        icmp_type=icmp[0],
        icmp_code=icmp[1],
        cidrs=",".join(sources),
    )
    text = f"firewall rule for {kind} at {held.ip}"
    return rules.created(tx, caller, FIREWALL, net, rule_id, command="createFirewallRule", text=text)


def delete(tx: Tx, caller: Caller, rule_id: int) -> str:
    """Close what a rule opened; the job's UUID."""
    return rules.delete(tx, caller, FIREWALL, rule_id, command="deleteFirewallRule")


def list_page(
    tx: Tx, caller: Caller, asked: Asked, *, keyword: str | None, page_number: int | None, page_size: int | None
) -> tuple[list[dict[str, Any]], int]:
    """Rules within the bounds of the call, those that came with other rules too."""
    offset, limit = bounds(tx, page_number, page_size)
    where = rules.conditions(tx, caller, FIREWALL, asked)
    if keyword:
        where.append(like(firewall_rule.c.protocol, keyword))
    rows, count = page(tx, firewall_rule, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, rule_id: int) -> dict[str, Any]:
    """One rule, as lists show it."""
    return _views(tx, [rules.by_id(tx, FIREWALL, rule_id)])[0]


def _refuse_given(parameter: str, value: int | None, kind: Protocol) -> None:
    if value is not None:
        raise ParameterError(f"a rule for {kind} has no {parameter}", parameter=parameter)


def _icmp(type_: int | None, code: int | None) -> tuple[int | None, int | None]:
    """Type and code as they are kept: None for any, which callers may also call -1."""
    for value, parameter in ((type_, "icmptype"), (code, "icmpcode")):
        if value is not None and not -1 <= value <= HIGHEST_ICMP:
            raise ParameterError(f"{parameter} lies between -1 (any) and {HIGHEST_ICMP}", parameter=parameter)
    found = (None if type_ in (None, -1) else type_, None if code in (None, -1) else code)
    if found[0] is None and found[1] is not None:
        raise ParameterError("an icmpcode is of one icmptype: give that too", parameter="icmptype")
    return found


def _refuse_overlap(
    tx: Tx,
    held: Address,
    kind: Protocol,
    ports: Ports | None,
    icmp: tuple[int | None, int | None],
    sources: Sequence[str],
) -> None:
    """537 for what a rule of the address lets in already, at least in part."""
    table = firewall_rule.c
    same = select(firewall_rule).where(
        table.live == 1, table.public_ip_id == held.id, table.protocol == str(kind), table.opener_id.is_(None)
    )
    wanted = [IPv4Network(each) for each in sources]
    for row in tx.all(same):
        if ports is not None:
            meets = ports.overlaps(row["start_port"], row["end_port"])
        else:
            meets = all(
                mine is None or theirs is None or mine == theirs
                for mine, theirs in zip(icmp, (row["icmp_type"], row["icmp_code"]), strict=True)
            )
        theirs = [IPv4Network(each) for each in row["cidrs"].split(",")]
        if meets and any(mine.overlaps(other) for mine in wanted for other in theirs):
            raise RuleConflict(f"firewall rule {row['uuid']} of {held.ip} lets in some of that already")


def _views(tx: Tx, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    addresses = related(tx, public_ip, (row["public_ip_id"] for row in rows))
    return [
        {
            "id": row["uuid"],
            "protocol": row["protocol"],
            "start_port": None if row["start_port"] is None else str(row["start_port"]),
            "end_port": None if row["end_port"] is None else str(row["end_port"]),
            "icmp_type": row["icmp_type"],
            "icmp_code": row["icmp_code"],
            "ip_address_id": addresses[row["public_ip_id"]]["uuid"],
            "ip_address": addresses[row["public_ip_id"]]["address"],
            "cidr_list": row["cidrs"],
            "state": row["state"],
        }
        for row in rows
    ]
