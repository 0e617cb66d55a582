"""Port forwarding rules. Guide: "IP Forwarding and Firewalling"."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, insert, select

from pileus.server.auth.visibility import require, scope
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries.network import Net
from pileus.server.db.queries.page import like, page, related
from pileus.server.db.queries.public_ip import Address
from pileus.server.db.tables.network import nic, port_forwarding_rule, public_ip
from pileus.server.db.tables.vm import vm
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError, PermissionDenied, ResourceInUse, RuleConflict
from pileus.server.domain.network import RULE, IpState, RuleState
from pileus.server.elements import virtual_router
from pileus.server.events import record, types
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import submit
from pileus.server.services.paging import bounds
from pileus.server.workflows.port_forwarding import KIND, port_forwarding_create, port_forwarding_delete

PROTOCOLS = ("tcp", "udp")
HIGHEST_PORT = 65535
ANYWHERE = "0.0.0.0/0"
DEADLINE_SECONDS = 900.0


@dataclass(frozen=True)
class Ports:
    """Ports of one side, inclusive."""

    first: int
    last: int

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any port is in both."""
        return self.first <= last and first <= self.last


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
    kind = protocol.strip().lower()
    if kind not in PROTOCOLS:
        raise ParameterError(f"protocol must be tcp or udp, got {protocol!r}", parameter="protocol")
    outside = _ports(public_port, public_end_port, "public")
    inside = _ports(private_port, private_end_port, "private")
    if outside.last - outside.first != inside.last - inside.first:
        raise ParameterError("public and private port ranges must have the same length", parameter="privateendport")
    # A rule that let in more than was asked for would be worse than none.
    if any(cidr != ANYWHERE for cidr in cidrs):
        raise ParameterError(f"only {ANYWHERE} is supported as the source of a rule", parameter="cidrlist")
    if not open_firewall:
        raise ParameterError("a rule always opens the firewall for its ports", parameter="openfirewall")
    held, net = _address(tx, caller, public_ip_id)
    _guest(tx, held, net, vm_id)
    if not networks.use(tx, net.id):
        raise ParameterError(f"network {net.name} is being removed", parameter="ipaddressid")
    _refuse_overlap(tx, held, kind, outside)
    rule_id = tx.insert(
        insert(port_forwarding_rule).values(
            public_ip_id=held.id,
            network_id=net.id,
            vm_id=vm_id,
            account_id=net.account_id,
            domain_id=net.domain_id,
            protocol=kind,
            public_start=outside.first,
            public_end=outside.last,
            private_start=inside.first,
            private_end=inside.last,
            state=str(RuleState.ADD),
            created_at=tx.now,
        )
    )
    generation = virtual_router.changed(tx, net.id)
    plan = port_forwarding_create(network=net.id, rule=rule_id, generation=generation)
    text = f"Adding port forwarding rule {held.ip}:{outside.first}/{kind}"
    job = _job(tx, caller, net, rule_id, plan, "createPortForwardingRule", types.NET_RULEADD, text)
    return job, str(_by_id(tx, rule_id)["uuid"])


def delete(tx: Tx, caller: Caller, rule_id: int) -> str:
    """Remove a rule; the job's UUID."""
    row = _by_id(tx, rule_id)
    require(tx, caller, row["account_id"], row["domain_id"], "the rule")
    if not transition(tx, port_forwarding_rule, rule_id, RULE, RuleState.REVOKE):
        raise ResourceInUse("the rule is being removed already")
    net = networks.by_id(tx, row["network_id"])
    generation = virtual_router.changed(tx, net.id)
    plan = port_forwarding_delete(network=net.id, rule=rule_id, generation=generation)
    text = f"Deleting port forwarding rule {row['uuid']}"
    return _job(tx, caller, net, rule_id, plan, "deletePortForwardingRule", types.NET_RULEDELETE, text)


def list_page(
    tx: Tx,
    caller: Caller,
    *,
    rule_id: int | None,
    public_ip_id: int | None,
    account_name: str | None,
    domain_id: int | None,
    keyword: str | None,
    list_all: bool | None,
    is_recursive: bool | None,
    page_number: int | None,
    page_size: int | None,
    vm_id: int | None = None,
    static_nat: bool = False,
) -> tuple[list[dict[str, Any]], int]:
    """Rules within the bounds of the call; with `static_nat`, those on addresses that belong to one guest whole."""
    offset, limit = bounds(tx, page_number, page_size)
    within = scope(
        caller,
        account=account_name,
        domain_id=domain_id,
        list_all=list_all,
        is_recursive=is_recursive,
        by_id=rule_id is not None or public_ip_id is not None,
        tx=tx,
    )
    where: list[ColumnElement[bool]] = [port_forwarding_rule.c.live == 1]
    where += within.where(port_forwarding_rule.c.account_id, port_forwarding_rule.c.domain_id)
    if rule_id is not None:
        where.append(port_forwarding_rule.c.id == rule_id)
    if public_ip_id is not None:
        where.append(port_forwarding_rule.c.public_ip_id == public_ip_id)
    if vm_id is not None:
        where.append(port_forwarding_rule.c.vm_id == vm_id)
    whole = select(public_ip.c.id).where(public_ip.c.is_static_nat == 1)
    on_whole = port_forwarding_rule.c.public_ip_id.in_(whole)
    where.append(on_whole if static_nat else ~on_whole)
    if keyword:
        where.append(like(port_forwarding_rule.c.protocol, keyword))
    rows, count = page(tx, port_forwarding_rule, where, offset=offset, limit=limit)
    return _views(tx, rows), count


def view(tx: Tx, caller: Caller, rule_id: int) -> dict[str, Any]:
    """One rule, as lists show it."""
    return _views(tx, [_by_id(tx, rule_id)])[0]


def _ports(first: int, last: int | None, side: str) -> Ports:
    found = Ports(first, first if last is None else last)
    for port, parameter in ((found.first, f"{side}port"), (found.last, f"{side}endport")):
        if not 1 <= port <= HIGHEST_PORT:
            raise ParameterError(f"{parameter} must lie between 1 and {HIGHEST_PORT}", parameter=parameter)
    if found.last < found.first:
        raise ParameterError(f"{side}endport comes before {side}port", parameter=f"{side}endport")
    return found


def _address(tx: Tx, caller: Caller, public_ip_id: int) -> tuple[Address, Net]:
    held = public_ips.by_id(tx, public_ip_id)
    if held is None or held.network_id is None or held.account_id is None or held.state is not IpState.ALLOCATED:
        raise ParameterError("the address is not associated with a network", parameter="ipaddressid")
    require(tx, caller, held.account_id, held.domain_id, f"address {held.ip}")
    net = networks.by_id(tx, held.network_id)
    if not net.is_virtual:
        raise ParameterError("an address of a Direct network forwards no ports", parameter="ipaddressid")
    return held, net


def _guest(tx: Tx, held: Address, net: Net, vm_id: int) -> None:
    row = tx.one(
        select(vm.c.account_id, vm.c.state, nic.c.id.label("nic_id"))
        .select_from(vm.outerjoin(nic, (nic.c.vm_id == vm.c.id) & (nic.c.network_id == net.id) & (nic.c.live == 1)))
        .where(vm.c.id == vm_id)
    )
    if row is None or row["state"] in ("Destroyed", "Expunging", "Error"):
        raise ParameterError("the virtual machine is gone", parameter="virtualmachineid")
    if row["account_id"] != held.account_id:
        raise PermissionDenied("the virtual machine and the address belong to different accounts")
    if row["nic_id"] is None:
        raise ParameterError(
            f"the virtual machine has no card on network {net.name} of the address", parameter="virtualmachineid"
        )


def _refuse_overlap(tx: Tx, held: Address, protocol: str, outside: Ports) -> None:
    """The network's row is held by now, so no other rule of it can come in between."""
    rules = select(port_forwarding_rule).where(
        port_forwarding_rule.c.public_ip_id == held.id,
        port_forwarding_rule.c.protocol == protocol,
        port_forwarding_rule.c.live == 1,
    )
    for row in tx.all(rules):
        if outside.overlaps(row["public_start"], row["public_end"]):
            raise RuleConflict(
                f"ports {outside.first}-{outside.last}/{protocol} of {held.ip} overlap rule {row['uuid']}"
                f" ({row['public_start']}-{row['public_end']})"
            )


def _by_id(tx: Tx, rule_id: int) -> RowMapping:
    row = tx.one(select(port_forwarding_rule).where(port_forwarding_rule.c.id == rule_id))
    if row is None:
        raise LookupError(f"port forwarding rule {rule_id}")
    return row


def _job(tx: Tx, caller: Caller, net: Net, rule_id: int, plan: Plan, command: str, event: str, text: str) -> str:
    owner = Owner(net.account_id, net.domain_id, caller.user_id)
    started = record(
        tx,
        type=event,
        description=text,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=owner.user_id,
        state=SCHEDULED,
        resource_kind=KIND,
        resource_id=rule_id,
        zone_id=net.zone_id,
    )
    job = submit(
        tx,
        plan,
        owner,
        command=command,
        instance_kind=KIND,
        instance_id=rule_id,
        resource_key=f"rule:{rule_id}",
        deadline_seconds=DEADLINE_SECONDS,
        start_event_id=started,
    )
    return job.uuid


def _views(tx: Tx, rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    addresses = related(tx, public_ip, (row["public_ip_id"] for row in rows))
    guests = related(tx, vm, (row["vm_id"] for row in rows))
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
            "cidr_list": ANYWHERE,
            "state": row["state"],
        }
        for row in rows
    ]
