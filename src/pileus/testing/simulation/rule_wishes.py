"""What commands on rules at public addresses need beyond their declaration."""

from sqlalchemy import RowMapping, select

from pileus.server.db.tables.network import nic, public_ip
from pileus.server.db.tables.rule import load_balancer_member, load_balancer_rule
from pileus.server.db.tables.vm import vm
from pileus.server.domain import ids
from pileus.server.domain.vm import VmKind
from pileus.testing.simulation.wishes import LIKELY, Parameters, Person, Wishes, wish

_OF_A_NETWORK = public_ip.c.network_id.is_not(None)
_EXTRA = public_ip.c.is_source_nat == 0
_WHOLE = public_ip.c.is_static_nat == 1
_WITH_GUESTS = public_ip.c.network_id.in_(
    select(nic.c.network_id).join(vm, vm.c.id == nic.c.vm_id).where(nic.c.live == 1, vm.c.kind == str(VmKind.USER))
)


def _guest_on(now: Wishes, person: Person, row: RowMapping) -> str | None:
    """A guest for a rule: mostly one that is on the network of the row."""
    on_network = select(nic.c.vm_id).where(nic.c.network_id == row["network_id"], nic.c.live == 1)
    found = now.thing(ids.Vm, person, vm.c.id.in_(on_network)) if now.dice.random() < LIKELY else None
    found = found or now.thing(ids.Vm, person)
    return None if found is None else str(found["uuid"])


@wish("createPortForwardingRule")
def _forward(now: Wishes, person: Person) -> Parameters | None:
    address = now.thing(ids.PublicIp, person, _OF_A_NETWORK)
    if address is None:
        return None
    port = now.dice.randrange(20, 30)
    return {
        "ipaddressid": address["uuid"],
        "virtualmachineid": _guest_on(now, person, address),
        "protocol": now.dice.choice(("tcp", "tcp", "udp")),
        "publicport": port,
        "privateport": port,
        "publicendport": now.once(0.1, port + 1),
        "privateendport": None,
        "openfirewall": now.once(0.3, True),
        "cidrlist": None,
    }


@wish("updatePortForwardingRule")
def _other_forward(now: Wishes, person: Person) -> Parameters | None:
    rule = now.thing(ids.PortForwardingRule, person)
    if rule is None:
        return None
    return {
        "ipaddressid": now.world.uuid(public_ip, rule["public_ip_id"]),
        "protocol": rule["protocol"],
        "publicport": rule["public_start"],
        "privateport": now.dice.randrange(20, 30),
        "virtualmachineid": now.once(0.3, _guest_on(now, person, rule)),
        "privateip": None,
    }


@wish("createFirewallRule")
def _opening(now: Wishes, person: Person) -> Parameters | None:
    port = now.dice.randrange(20, 40)
    kinds: tuple[Parameters, ...] = (
        {"protocol": "tcp", "startport": port, "endport": now.once(0.5, port + 3)},
        {"protocol": "udp", "startport": port, "endport": None},
        {"protocol": "icmp", "icmptype": now.once(0.5, 8), "startport": None, "endport": None},
    )
    chosen = now.dice.choice(kinds)
    return {
        "ipaddressid": now.uuid_of(ids.PublicIp, person, _OF_A_NETWORK),
        "icmptype": None,
        "icmpcode": None,
        "cidrlist": now.once(0.5, now.dice.choice(("192.0.2.0/24", "192.0.2.128/25,198.51.100.7/32"))),
        **chosen,
    }


@wish("enableStaticNat")
def _whole(now: Wishes, person: Person) -> Parameters | None:
    address = now.thing(ids.PublicIp, person, _OF_A_NETWORK, _EXTRA)
    if address is None:
        return None
    return {"ipaddressid": address["uuid"], "virtualmachineid": _guest_on(now, person, address)}


@wish("disableStaticNat")
def _not_whole(now: Wishes, person: Person) -> Parameters | None:
    return {"ipaddressid": now.uuid_of(ids.PublicIp, person, _OF_A_NETWORK, likely=_WHOLE)}


@wish("createIpForwardingRule")
def _ports_of_whole(now: Wishes, person: Person) -> Parameters | None:
    port = now.dice.randrange(20, 40)
    return {
        "ipaddressid": now.uuid_of(ids.PublicIp, person, _OF_A_NETWORK, likely=_WHOLE),
        "protocol": now.dice.choice(("tcp", "udp")),
        "startport": port,
        "endport": now.once(0.3, port + 2),
        "cidrlist": None,
        "openfirewall": now.once(0.3, True),
    }


@wish("createLoadBalancerRule")
def _balancer(now: Wishes, person: Person) -> Parameters | None:
    address = now.uuid_of(ids.PublicIp, person, _OF_A_NETWORK, likely=_WITH_GUESTS)
    if address is None:
        return None
    return {
        "publicipid": address,
        "name": now.name("balancer"),
        "algorithm": now.dice.choice(("roundrobin", "leastconn", "source")),
        "publicport": now.dice.randrange(25, 45),
        "privateport": 80,
        "zoneid": None,
        "account": None,
        "domainid": None,
        "cidrlist": None,
        "openfirewall": now.once(0.3, True),
    }


@wish("updateLoadBalancerRule")
def _other_balancer(now: Wishes, person: Person) -> Parameters | None:
    return {
        "id": now.uuid_of(ids.LoadBalancerRule, person),
        "algorithm": now.dice.choice(("roundrobin", "leastconn", "source")),
        "name": now.once(0.3, now.name("balancer")),
    }


@wish("removeFromLoadBalancerRule")
def _no_member(now: Wishes, person: Person) -> Parameters | None:
    rule = now.thing(ids.LoadBalancerRule, person, _WITH_MEMBERS)
    member = rule and now.any_where(load_balancer_member, rule_id=rule["id"], live=1)
    if rule is None or member is None:
        return None
    return {"id": rule["uuid"], "virtualmachineids": now.world.uuid(vm, member["vm_id"])}


_WITH_MEMBERS = load_balancer_rule.c.id.in_(
    select(load_balancer_member.c.rule_id).where(load_balancer_member.c.live == 1)
)


@wish("assignToLoadBalancerRule")
def _member(now: Wishes, person: Person) -> Parameters | None:
    rule = now.thing(ids.LoadBalancerRule, person)
    if rule is None:
        return None
    return {"id": rule["uuid"], "virtualmachineids": _guest_on(now, person, rule)}


@wish("addVpnUser", "removeVpnUser")
def _vpn_user(now: Wishes, person: Person) -> Parameters | None:
    there = now.thing(ids.VpnUser, person)
    name = there["username"] if there is not None and now.dice.random() < LIKELY else f"u{now.name('vpn')}"
    return {"username": name, "password": "a-password", "account": None, "domainid": None}
