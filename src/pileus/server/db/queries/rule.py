"""Rules at public addresses, whatever their kind: revoked, and taken out of use with all that hangs on them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, select, update

from pileus.server.db.tables.network import port_forwarding_rule
from pileus.server.db.tables.rule import firewall_rule, ip_forwarding_rule, load_balancer_member, load_balancer_rule
from pileus.server.db.tables.vpn import remote_access_vpn, vpn_user
from pileus.server.db.transaction import Tx
from pileus.server.db.transition import transition
from pileus.server.domain.network import RULE, RuleState


@dataclass(frozen=True)
class Kind:
    """One kind of rule. `name` stands in stored jobs, events and firewall rules; `noun` is for people."""

    name: str
    noun: str
    table: Table


PORT_FORWARDING = Kind("FirewallRule", "port forwarding rule", port_forwarding_rule)
FIREWALL = Kind("Firewall", "firewall rule", firewall_rule)
IP_FORWARDING = Kind("IpForwardingRule", "IP forwarding rule", ip_forwarding_rule)
BALANCER = Kind("LoadBalancerRule", "load balancer rule", load_balancer_rule)
VPN = Kind("RemoteAccessVpn", "remote access VPN", remote_access_vpn)
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (PORT_FORWARDING, FIREWALL, IP_FORWARDING, BALANCER, VPN)}


def revoke(tx: Tx, kind: Kind, rule: int) -> bool:
    """Declare that a rule and what it opened shall go; False when it is going already."""
    if not transition(tx, kind.table, rule, RULE, RuleState.REVOKE):
        return False
    for opened in opened_by(tx, kind, rule):
        transition(tx, firewall_rule, opened, RULE, RuleState.REVOKE)
    return True


def activate(tx: Tx, kind: Kind, rule: int, *, frm: RuleState) -> bool:
    """The rule and what it opened are in force, or in force again; False when it was not in that state."""
    if not transition(tx, kind.table, rule, RULE, RuleState.ACTIVE, frm=frm):
        return False
    for opened in opened_by(tx, kind, rule):
        transition(tx, firewall_rule, opened, RULE, RuleState.ACTIVE, frm=frm)
    return True


def live_state(tx: Tx, kind: Kind, rule: int) -> RuleState | None:
    """The state of a rule that is in use."""
    state = tx.scalar(select(kind.table.c.state).where(kind.table.c.id == rule, kind.table.c.live == 1))
    return None if state is None else RuleState(state)


def forget(tx: Tx, kind: Kind, *which: ColumnElement[bool]) -> None:
    """Take rules, what they opened and who shares in them out of use: no router has them, or will."""
    rules = list(tx.execute(select(kind.table.c.id).where(kind.table.c.live == 1, *which)).scalars())
    if not rules:
        return
    _remove(tx, firewall_rule, firewall_rule.c.opener_kind == kind.name, firewall_rule.c.opener_id.in_(rules))
    if kind is BALANCER:
        _remove(tx, load_balancer_member, load_balancer_member.c.rule_id.in_(rules))
    _remove(tx, kind.table, kind.table.c.id.in_(rules))


def forget_all(tx: Tx, column: str, value: int) -> None:
    """Take every rule out of use whose `network_id`, `public_ip_id` or `vm_id` has this value."""
    for kind in KINDS.values():
        found: Column[Any] | None = kind.table.c.get(column)
        if found is not None:
            forget(tx, kind, found == value)
    if column == "vm_id":
        _remove(tx, load_balancer_member, load_balancer_member.c.vm_id == value)


def forget_vpn_users(tx: Tx, account_id: int) -> None:
    """Nobody comes in by VPNs of the account any more; passwords are kept by nobody."""
    mine = update(vpn_user).where(vpn_user.c.account_id == account_id, vpn_user.c.live == 1)
    tx.execute(mine.values(live=None, state=str(RuleState.REVOKE), password=""))


def opened_by(tx: Tx, kind: Kind, rule: int) -> list[int]:
    """Firewall rules that came with a rule."""
    if kind is FIREWALL:
        return []
    of_rule = (firewall_rule.c.opener_kind == kind.name, firewall_rule.c.opener_id == rule)
    return list(tx.execute(select(firewall_rule.c.id).where(firewall_rule.c.live == 1, *of_rule)).scalars())


def _remove(tx: Tx, table: Table, *which: ColumnElement[bool]) -> None:
    tx.execute(update(table).where(table.c.live == 1, *which).values(live=None, state=str(RuleState.REVOKE)))
