"""Load balancer rules: connections to an address are shared out among guests. Guide: "Load Balancing"."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, insert, select, update

from pileus.server.auth.visibility import owner as owner_of
from pileus.server.auth.visibility import require
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.queries.rule import BALANCER
from pileus.server.db.tables.account import account, domain
from pileus.server.db.tables.network import network, nic, public_ip
from pileus.server.db.tables.place import zone
from pileus.server.db.tables.rule import load_balancer_member, load_balancer_rule
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError, ResourceInUse
from pileus.server.domain.network import RULE, Algorithm, Protocol, RuleState
from pileus.server.domain.vm import VmKind
from pileus.server.elements import virtual_router
from pileus.server.events import types
from pileus.server.services import public_ip as addresses
from pileus.server.services import rule as rules
from pileus.server.services import vm_list
from pileus.server.services.choice import one_of
from pileus.server.services.columns import Columns
from pileus.server.services.naming import checked_name
from pileus.server.services.paging import bounds
from pileus.server.services.rule import Asked
from pileus.server.workflows.load_balancer import load_balancer_assign, load_balancer_remove

MOST_MEMBERS = 200
"""Guests of one call."""


def create(
    tx: Tx,
    caller: Caller,
    *,
    name: str,
    description: str | None,
    public_ip_id: int | None,
    zone_id: int | None,
    account_name: str | None,
    domain_id: int | None,
    algorithm: str,
    public_port: int,
    private_port: int,
    cidrs: Sequence[str],
    open_firewall: bool,
) -> tuple[str, str]:
    """Share out TCP connections to a port of an address; of the source NAT one of the zone's network unless given.

    Returns job and rule (UUIDs). Errors: ports, algorithm or a used name (431), overlap with a rule (537).
    """
    how = one_of(Algorithm, algorithm, "algorithm")
    checked_name(name, "name")
    outside = rules.ports_of(public_port, None, "publicport", "publicport")
    inside = rules.ports_of(private_port, None, "privateport", "privateport")
    sources = rules.wants_opening(cidrs, open_firewall)
    owner = owner_of(tx, caller, account_name, domain_id)
    if public_ip_id is None:
        public_ip_id = _source_nat(tx, caller, owner, zone_id)
    held, net = rules.address_of(tx, caller, public_ip_id, "publicipid")
    rules.refuse_whole(held, "publicipid")
    rules.refuse_taken(tx, held, Protocol.TCP, outside)
    _refuse_name(tx, held.id, name)
    rule_id = rules.add(
        tx,
        BALANCER,
        held,
        net,
        name=name,
        description=description,
        public_port=outside.first,
        private_port=inside.first,
        algorithm=str(how),
    )
    rules.open_firewall(tx, BALANCER, rule_id, held, net, protocol=Protocol.TCP, ports=outside, sources=sources)
    text = f"load balancer rule {name} at {held.ip}:{outside.first}"
    return rules.created(tx, caller, BALANCER, net, rule_id, command="createLoadBalancerRule", text=text)


def change(
    tx: Tx, caller: Caller, rule_id: int, *, name: str | None, description: str | None, algorithm: str | None
) -> str:
    """Give a rule another name, description or algorithm; the job's UUID."""
    row = _usable(tx, caller, rule_id)
    values: dict[str, Any] = {}
    if name is not None and name != row["name"]:
        checked_name(name, "name")
        _refuse_name(tx, row["public_ip_id"], name)
        values["name"] = name
    if description is not None:
        values["description"] = description
    if algorithm is not None:
        values["algorithm"] = str(one_of(Algorithm, algorithm, "algorithm"))
    if values:
        tx.execute(update(load_balancer_rule).where(load_balancer_rule.c.id == rule_id).values(values))
    return rules.changed(tx, caller, BALANCER, row, command="updateLoadBalancerRule", names=tuple(values))


def delete(tx: Tx, caller: Caller, rule_id: int) -> str:
    """Remove a rule with its members; the job's UUID."""
    return rules.delete(tx, caller, BALANCER, rule_id, command="deleteLoadBalancerRule")


def assign(tx: Tx, caller: Caller, rule_id: int, vm_ids: Sequence[int]) -> str:
    """Let guests take part; the job's UUID. Errors: a guest of another account (531), one that is a member (431)."""
    row = _usable(tx, caller, rule_id)
    wanted = _distinct(vm_ids)
    held = public_ips.by_id(tx, row["public_ip_id"])
    if held is None:
        raise LookupError(f"address {row['public_ip_id']}")
    net = networks.by_id(tx, row["network_id"])
    there = {member["vm_id"] for member in _members(tx, rule_id)}
    added = []
    for vm_id in wanted:
        guest = rules.guest_of(tx, held, net, vm_id, "virtualmachineids")
        if vm_id in there:
            text = f"virtual machine {guest['name']} takes part in the rule already"
            raise ParameterError(text, parameter="virtualmachineids")
        values = {"rule_id": rule_id, "vm_id": vm_id, "state": str(RuleState.ADD), "created_at": tx.now}
        added.append(tx.insert(insert(load_balancer_member).values(values)))
    generation = virtual_router.changed(tx, net.id)
    plan = load_balancer_assign(network=net.id, rule=rule_id, members=added, generation=generation)
    return rules.begin(
        tx,
        caller,
        BALANCER,
        net,
        rule_id,
        plan,
        command="assignToLoadBalancerRule",
        event=types.LB_ASSIGN_TO_RULE,
        text=f"Assigning {len(added)} virtual machines to load balancer rule {row['name']}",
    )


def remove(tx: Tx, caller: Caller, rule_id: int, vm_ids: Sequence[int]) -> str:
    """Let guests take part no more; the job's UUID. Errors: a guest that is no member (431), one that goes (536)."""
    row = _usable(tx, caller, rule_id)
    there = {member["vm_id"]: member for member in _members(tx, rule_id)}
    going = []
    for vm_id in _distinct(vm_ids):
        member = there.get(vm_id)
        if member is None:
            text = "a virtual machine of these takes no part in the rule"
            raise ParameterError(text, parameter="virtualmachineids")
        if not transition(tx, load_balancer_member, member["id"], RULE, RuleState.REVOKE):
            raise ResourceInUse("a virtual machine of these is being removed from the rule already")
        going.append(member["id"])
    net = networks.by_id(tx, row["network_id"])
    generation = virtual_router.changed(tx, net.id)
    plan = load_balancer_remove(network=net.id, rule=rule_id, members=going, generation=generation)
    return rules.begin(
        tx,
        caller,
        BALANCER,
        net,
        rule_id,
        plan,
        command="removeFromLoadBalancerRule",
        event=types.LB_REMOVE_FROM_RULE,
        text=f"Removing {len(going)} virtual machines from load balancer rule {row['name']}",
    )


def list_page(
    tx: Tx,
    caller: Caller,
    asked: Asked,
    *,
    name: str | None,
    vm_id: int | None,
    zone_id: int | None,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[list[dict[str, Any]], int]:
    """Rules within the bounds of the call."""
    offset, limit = bounds(tx, page_number, page_size)
    where = rules.conditions(tx, caller, BALANCER, asked)
    table = load_balancer_rule.c
    if name is not None:
        where.append(table.name == name)
    if vm_id is not None:
        member = load_balancer_member.c
        of_guest = select(member.rule_id).where(member.vm_id == vm_id, member.live == 1)
        where.append(table.id.in_(of_guest))
    if zone_id is not None:
        where.append(table.public_ip_id.in_(select(public_ip.c.id).where(public_ip.c.zone_id == zone_id)))
    if keyword:
        where.append(like(table.name, keyword))
    rows, count = page(tx, load_balancer_rule, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def instances_page(
    tx: Tx,
    caller: Caller,
    rule_id: int,
    *,
    applied: bool,
    keyword: str | None,
    page_number: int | None,
    page_size: int | None,
) -> tuple[Columns, int]:
    """The guests that take part in a rule; without `applied` those of the account on its network that do not."""
    row = rules.by_id(tx, BALANCER, rule_id)
    chosen = {member["vm_id"] for member in _members(tx, rule_id) if member["state"] != RuleState.REVOKE}
    if not applied:
        mine = (nic.c.network_id == row["network_id"], nic.c.live == 1, vm.c.account_id == row["account_id"])
        there = select(vm.c.id).join(nic, nic.c.vm_id == vm.c.id).where(*mine, vm.c.kind == str(VmKind.USER))
        chosen = set(tx.execute(there).scalars()) - chosen
    shown = {**_NO_OTHER_FILTER, "vm_ids": chosen, "keyword": keyword}
    return vm_list.list_page(tx, caller, page=page_number, page_size=page_size, **shown)


_NO_OTHER_FILTER: Any = {
    **dict.fromkeys(
        (
            *("account_name", "domain_id", "vm_id", "name", "state", "keyword", "zone_id", "pod_id", "host_id"),
            *("network_id", "storage_id", "template_id", "service_offering_id", "hypervisor", "group", "group_id"),
            *("key_pair", "for_virtual_network"),
        )
    ),
    "list_all": True,
    "is_recursive": True,
}


def view(tx: Tx, caller: Caller, rule_id: int) -> dict[str, Any]:
    """One rule, as lists show it."""
    return _views(tx, [rules.by_id(tx, BALANCER, rule_id)])[0]


def _usable(tx: Tx, caller: Caller, rule_id: int) -> RowMapping:
    """A rule that may be changed; its network is held for the rest of the unit of work."""
    row = rules.by_id(tx, BALANCER, rule_id)
    require(tx, caller, row["account_id"], row["domain_id"], "the load balancer rule")
    networks.use(tx, row["network_id"])
    if row["state"] == RuleState.REVOKE:
        raise ResourceInUse("the load balancer rule is being removed")
    return row


def _members(tx: Tx, rule_id: int) -> list[RowMapping]:
    table = load_balancer_member.c
    return tx.all(select(load_balancer_member).where(table.rule_id == rule_id, table.live == 1).order_by(table.id))


def _distinct(vm_ids: Sequence[int]) -> list[int]:
    found = list(dict.fromkeys(vm_ids))
    if not 1 <= len(found) <= MOST_MEMBERS:
        text = f"virtualmachineids names 1 to {MOST_MEMBERS} virtual machines"
        raise ParameterError(text, parameter="virtualmachineids")
    return found


def _refuse_name(tx: Tx, public_ip_id: int, name: str) -> None:
    table = load_balancer_rule.c
    same = (table.live == 1, table.public_ip_id == public_ip_id, table.name == name)
    if tx.scalar(select(table.id).where(*same)) is not None:
        raise ParameterError(f"the address has a load balancer rule named {name} already", parameter="name")


def _source_nat(tx: Tx, caller: Caller, owner: Owner, zone_id: int | None) -> int:
    if zone_id is None:
        raise ParameterError("give a publicipid, or a zoneid for the source NAT address there", parameter="publicipid")
    net = addresses.network_for(tx, caller, owner, zone_id, None)
    held = public_ips.source_nat_of(tx, net.id)
    if held is None:
        text = f"network {net.name} has no address yet: acquire one by associateIpAddress"
        raise ParameterError(text, parameter="zoneid")
    return held.id


def _views(tx: Tx, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    ips = related(tx, public_ip, (row["public_ip_id"] for row in rows))
    accounts = related(tx, account, (row["account_id"] for row in rows))
    domains = related(tx, domain, (row["domain_id"] for row in rows))
    nets = related(tx, network, (row["network_id"] for row in rows))
    zones = related(tx, zone, (net["zone_id"] for net in nets.values()))
    opened = rules.opened_for(tx, BALANCER, {row["id"] for row in rows})
    return [
        {
            "id": row["uuid"],
            "name": row["name"],
            "description": row["description"],
            "public_ip_id": ips[row["public_ip_id"]]["uuid"],
            "public_ip": ips[row["public_ip_id"]]["address"],
            "public_port": str(row["public_port"]),
            "private_port": str(row["private_port"]),
            "algorithm": row["algorithm"],
            "account": accounts[row["account_id"]]["name"],
            "domain_id": domains[row["domain_id"]]["uuid"],
            "domain": domains[row["domain_id"]]["name"],
            "zone_id": zones[nets[row["network_id"]]["zone_id"]]["uuid"],
            "cidr_list": opened.get(row["id"]),
            "state": row["state"],
        }
        for row in rows
    ]
