"""What all rules at public addresses have in common: checks, ports, the firewall they open, and the job they begin."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Table, insert, select

from pileus.server.auth.visibility import require, scope
from pileus.server.db.queries import network as networks
from pileus.server.db.queries import public_ip as public_ips
from pileus.server.db.queries.network import Net
from pileus.server.db.queries.public_ip import Address
from pileus.server.db.queries.rule import BALANCER, IP_FORWARDING, PORT_FORWARDING, VPN, Kind, revoke
from pileus.server.db.tables.network import nic, port_forwarding_rule
from pileus.server.db.tables.rule import firewall_rule, ip_forwarding_rule, load_balancer_rule
from pileus.server.db.tables.vm import vm
from pileus.server.db.tables.vpn import remote_access_vpn
from pileus.server.db.transaction import Tx
from pileus.server.domain.caller import Caller, Owner
from pileus.server.domain.errors import ParameterError, PermissionDenied, ResourceInUse, RuleConflict
from pileus.server.domain.network import IpState, Protocol, RuleState
from pileus.server.elements import virtual_router
from pileus.server.events import record
from pileus.server.events.write import SCHEDULED
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.submit import submit
from pileus.server.workflows.rule import ADDED, CHANGED, REMOVED, rule_change, rule_create, rule_delete

HIGHEST_PORT = 65535
ANYWHERE = "0.0.0.0/0"
MOST_CIDRS = 100
DEADLINE_SECONDS = 900.0

VPN_PORTS = (500, 1701, 4500)
"""UDP ports of IPsec and L2TP: a VPN takes them at its address."""


@dataclass(frozen=True)
class Ports:
    """Ports of one side, inclusive."""

    first: int
    last: int

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any port is in both."""
        return self.first <= last and first <= self.last


# ---- what callers give


def protocol_of(given: str, among: Collection[Protocol]) -> Protocol:
    """A protocol by its name in any case; 431 for others than those."""
    try:
        found = Protocol(given.strip().lower())
    except ValueError:
        found = None
    if found is None or found not in among:
        names = ", ".join(sorted(among))
        raise ParameterError(f"protocol must be one of {names}, got {given!r}", parameter="protocol")
    return found


def ports_of(first: int, last: int | None, first_name: str, last_name: str) -> Ports:
    """A range of ports, of one when there is no `last`; the names are those of the parameters."""
    found = Ports(first, first if last is None else last)
    for port, parameter in ((found.first, first_name), (found.last, last_name)):
        if not 1 <= port <= HIGHEST_PORT:
            raise ParameterError(f"{parameter} must lie between 1 and {HIGHEST_PORT}", parameter=parameter)
    if found.last < found.first:
        raise ParameterError(f"{last_name} comes before {first_name}", parameter=last_name)
    return found


def sources_of(cidrs: Sequence[str]) -> tuple[str, ...]:
    """The networks to let in, each once and in order; everybody when none is given."""
    if len(cidrs) > MOST_CIDRS:
        raise ParameterError(f"cidrlist has more than {MOST_CIDRS} networks", parameter="cidrlist")
    found = set()
    for given in cidrs or (ANYWHERE,):
        try:
            found.add(IPv4Network(given.strip()))
        except (AddressValueError, NetmaskValueError, ValueError):
            text = f"cidrlist holds networks such as 192.0.2.0/24, without bits behind the prefix; got {given!r}"
            raise ParameterError(text, parameter="cidrlist") from None
    return tuple(str(network) for network in sorted(found))


def wants_opening(cidrs: Sequence[str], open_firewall: bool) -> tuple[str, ...]:
    """The sources to open the firewall for; none when it shall stay as it is."""
    if not open_firewall and cidrs:
        text = "cidrlist says for whom the firewall opens: with openfirewall=false use createFirewallRule"
        raise ParameterError(text, parameter="cidrlist")
    return sources_of(cidrs) if open_firewall else ()


def address_of(tx: Tx, caller: Caller, public_ip_id: int, parameter: str = "ipaddressid") -> tuple[Address, Net]:
    """An address that can have rules, and its network, which is held for the rest of the unit of work."""
    held = public_ips.by_id(tx, public_ip_id)
    if held is None or held.network_id is None or held.account_id is None or held.state is not IpState.ALLOCATED:
        raise ParameterError("the address is not associated with a network", parameter=parameter)
    require(tx, caller, held.account_id, held.domain_id, f"address {held.ip}")
    net = networks.by_id(tx, held.network_id)
    if not net.is_virtual:
        raise ParameterError("an address of a Direct network has no rules", parameter=parameter)
    if not networks.use(tx, net.id):
        raise ParameterError(f"network {net.name} is being removed", parameter=parameter)
    return held, net


def guest_of(tx: Tx, held: Address, net: Net, vm_id: int, parameter: str = "virtualmachineid") -> RowMapping:
    """A guest that a rule of the address may lead to: of the same account, and on the network."""
    row = tx.one(
        select(vm.c.account_id, vm.c.state, vm.c.name, nic.c.id.label("nic_id"), nic.c.ip)
        .select_from(vm.outerjoin(nic, (nic.c.vm_id == vm.c.id) & (nic.c.network_id == net.id) & (nic.c.live == 1)))
        .where(vm.c.id == vm_id)
    )
    if row is None or row["state"] in ("Destroyed", "Expunging", "Error"):
        raise ParameterError("the virtual machine is gone", parameter=parameter)
    if row["account_id"] != held.account_id:
        raise PermissionDenied("the virtual machine and the address belong to different accounts")
    if row["nic_id"] is None:
        text = f"the virtual machine has no card on network {net.name} of the address"
        raise ParameterError(text, parameter=parameter)
    return row


# ---- conflicts


def refuse_whole(held: Address, parameter: str = "ipaddressid") -> None:
    """431 for an address that belongs to one guest whole, or did so a moment ago."""
    if held.vm_id is not None:
        text = f"address {held.ip} belongs to one virtual machine whole: disable static NAT first"
        raise ParameterError(text, parameter=parameter)


def refuse_taken(tx: Tx, held: Address, protocol: Protocol, ports: Ports, *, other_than: int | None = None) -> None:
    """537 when a rule of the address uses a port already. The network is held, so none comes in between.

    `other_than` is the key of a port forwarding rule that may.
    """
    for noun, row in _taken(tx, held.id):
        own = noun == PORT_FORWARDING.noun and row["id"] == other_than
        if not own and row["protocol"] == protocol and ports.overlaps(row["first"], row["last"]):
            raise RuleConflict(
                f"ports {ports.first}-{ports.last}/{protocol} of {held.ip} overlap {noun} {row['uuid']}"
                f" ({row['first']}-{row['last']})"
            )


def rules_at(tx: Tx, public_ip_id: int) -> list[str]:
    """Every rule of an address but those of the firewall, as people say it."""
    return sorted({f"{noun} {row['uuid']}" for noun, row in _taken(tx, public_ip_id)})


def _taken(tx: Tx, public_ip_id: int) -> Iterable[tuple[str, dict[str, Any]]]:
    forward, whole, balancer, vpn = port_forwarding_rule, ip_forwarding_rule, load_balancer_rule, remote_access_vpn
    for table, first, last, noun in (
        (forward, "public_start", "public_end", PORT_FORWARDING.noun),
        (whole, "start_port", "end_port", IP_FORWARDING.noun),
        (balancer, "public_port", "public_port", BALANCER.noun),
    ):
        for row in tx.all(_live_at(table, public_ip_id)):
            protocol = row.get("protocol", str(Protocol.TCP))
            yield noun, {**_named(row), "protocol": protocol, "first": row[first], "last": row[last]}
    for row in tx.all(_live_at(vpn, public_ip_id)):
        for port in VPN_PORTS:
            yield VPN.noun, {**_named(row), "protocol": str(Protocol.UDP), "first": port, "last": port}


def _named(row: RowMapping) -> dict[str, Any]:
    return {"id": row["id"], "uuid": row["uuid"]}


def _live_at(table: Table, public_ip_id: int) -> Any:
    return select(table).where(table.c.public_ip_id == public_ip_id, table.c.live == 1)


# ---- what is written


def add(tx: Tx, kind: Kind, held: Address, net: Net, **values: Any) -> int:
    """Write a rule of the address; its key."""
    return tx.insert(
        insert(kind.table).values(
            public_ip_id=held.id,
            network_id=net.id,
            account_id=net.account_id,
            domain_id=net.domain_id,
            state=str(RuleState.ADD),
            created_at=tx.now,
            **values,
        )
    )


def open_firewall(
    tx: Tx,
    kind: Kind,
    rule_id: int,
    held: Address,
    net: Net,
    *,
    protocol: Protocol,
    ports: Ports,
    sources: Sequence[str],
) -> None:
    """Let the sources in at the ports of a rule, as long as there is the rule."""
    if sources:
        tx.insert(
            insert(firewall_rule).values(
                public_ip_id=held.id,
                network_id=net.id,
                account_id=net.account_id,
                domain_id=net.domain_id,
                protocol=str(protocol),
                start_port=ports.first,
                end_port=ports.last,
                cidrs=",".join(sources),
                opener_kind=kind.name,
                opener_id=rule_id,
                state=str(RuleState.ADD),
                created_at=tx.now,
            )
        )


def created(tx: Tx, caller: Caller, kind: Kind, net: Net, rule_id: int, *, command: str, text: str) -> tuple[str, str]:
    """Begin to bring a rule that was just written to the router. Returns job and rule (UUIDs)."""
    generation = virtual_router.changed(tx, net.id)
    plan = rule_create(kind=kind.name, network=net.id, rule=rule_id, generation=generation)
    job = begin(tx, caller, kind, net, rule_id, plan, command=command, event=ADDED[kind], text=f"Adding {text}")
    return job, str(by_id(tx, kind, rule_id)["uuid"])


def delete(tx: Tx, caller: Caller, kind: Kind, rule_id: int, *, command: str) -> str:
    """Remove a rule with what it opened; the job's UUID."""
    row = by_id(tx, kind, rule_id)
    require(tx, caller, row["account_id"], row["domain_id"], f"the {kind.noun}")
    networks.use(tx, row["network_id"])
    if not revoke(tx, kind, rule_id):
        raise ResourceInUse(f"the {kind.noun} is being removed already")
    net = networks.by_id(tx, row["network_id"])
    generation = virtual_router.changed(tx, net.id)
    plan = rule_delete(kind=kind.name, network=net.id, rule=rule_id, generation=generation)
    text = f"Deleting {kind.noun} {row['uuid']}"
    return begin(tx, caller, kind, net, rule_id, plan, command=command, event=REMOVED[kind], text=text)


def changed(tx: Tx, caller: Caller, kind: Kind, row: RowMapping, *, command: str, names: Sequence[str]) -> str:
    """Bring new values of a rule to the router; `row` is the rule as it was, `names` what changed. The job's UUID."""
    net = networks.by_id(tx, row["network_id"])
    generation = virtual_router.changed(tx, net.id)
    before = {name: row[name] for name in names}
    plan = rule_change(kind=kind.name, network=net.id, rule=row["id"], generation=generation, before=before)
    text = f"Changing {kind.noun} {row['uuid']}"
    return begin(tx, caller, kind, net, row["id"], plan, command=command, event=CHANGED[kind], text=text)


def begin(
    tx: Tx, caller: Caller, kind: Kind, net: Net, rule_id: int, plan: Plan, *, command: str, event: str, text: str
) -> str:
    """Announce and submit a job that works on a rule; its UUID."""
    owner = Owner(net.account_id, net.domain_id, caller.user_id)
    started = record(
        tx,
        type=event,
        description=text,
        account_id=owner.account_id,
        domain_id=owner.domain_id,
        user_id=owner.user_id,
        state=SCHEDULED,
        resource_kind=kind.name,
        resource_id=rule_id,
        zone_id=net.zone_id,
    )
    job = submit(
        tx,
        plan,
        owner,
        command=command,
        instance_kind=kind.name,
        instance_id=rule_id,
        # Keys of other tables must not queue behind each other.
        resource_key=f"rule:{kind.name}:{rule_id}",
        deadline_seconds=DEADLINE_SECONDS,
        start_event_id=started,
    )
    return job.uuid


# ---- what is shown


def by_id(tx: Tx, kind: Kind, rule_id: int) -> RowMapping:
    """The rule's row, in use or not."""
    row = tx.one(select(kind.table).where(kind.table.c.id == rule_id))
    if row is None:
        raise LookupError(f"{kind.noun} {rule_id}")
    return row


@dataclass(frozen=True)
class Asked:
    """Bounds of a list of rules, as every such list takes them."""

    rule_id: int | None = None
    public_ip_id: int | None = None
    account_name: str | None = None
    domain_id: int | None = None
    list_all: bool | None = None
    is_recursive: bool | None = None


def conditions(tx: Tx, caller: Caller, kind: Kind, asked: Asked) -> list[ColumnElement[bool]]:
    """Conditions on the rules that the caller may see of those asked for."""
    table = kind.table
    within = scope(
        caller,
        account=asked.account_name,
        domain_id=asked.domain_id,
        list_all=asked.list_all,
        is_recursive=asked.is_recursive,
        by_id=asked.rule_id is not None or asked.public_ip_id is not None,
        tx=tx,
    )
    where: list[ColumnElement[bool]] = [table.c.live == 1, *within.where(table.c.account_id, table.c.domain_id)]
    if asked.rule_id is not None:
        where.append(table.c.id == asked.rule_id)
    if asked.public_ip_id is not None:
        where.append(table.c.public_ip_id == asked.public_ip_id)
    return where


def opened_for(tx: Tx, kind: Kind, rule_ids: Collection[int]) -> dict[int, str]:
    """For whom rules opened the firewall, by their keys: networks separated by commas."""
    if not rule_ids:
        return {}
    table = firewall_rule.c
    of_rules = select(table.opener_id, table.cidrs).where(
        table.live == 1, table.opener_kind == kind.name, table.opener_id.in_(sorted(rule_ids))
    )
    return {row["opener_id"]: row["cidrs"] for row in tx.all(of_rules)}
