"""Every kind of thing an id can name: its table, what makes a row count, and the rule by which it is seen."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sqlalchemy import ColumnElement, Table

from pileus.server.db.tables import (
    account,
    event,
    host,
    job,
    network,
    offering,
    place,
    rule,
    ssh_key,
    template,
    vm,
    volume,
    vpn,
)
from pileus.server.domain import ids
from pileus.server.domain.vm import VmKind


class Rule(Enum):
    """Who sees a thing, besides root administrators."""

    EVERYONE = 1
    ADMINS = 2
    DOMAIN = 3
    """A domain itself: one's own; for administrators also those below."""
    ACCOUNT = 4
    """An account itself: one's own; for administrators also those of their domains."""
    OFFERED = 5
    """Everybody, or the one domain it was given to and those below it."""
    OWNED = 6
    OWNED_OR_SHARED = 7
    OWNED_OR_PUBLIC = 8
    VIA_VM = 9


@dataclass(frozen=True)
class Kind:
    """How ids of one kind are found and judged."""

    noun: str
    table: Table
    rule: Rule
    extra: tuple[ColumnElement[bool], ...] = ()

    @property
    def conditions(self) -> tuple[ColumnElement[bool], ...]:
        """What a row must be to exist at all."""
        if "live" in self.table.c:
            return (self.table.c.live == 1, *self.extra)
        return self.extra


KINDS: Mapping[type[ids.Entity], Kind] = {
    ids.Domain: Kind("domain", account.domain, Rule.DOMAIN),
    ids.Account: Kind("account", account.account, Rule.ACCOUNT),
    ids.User: Kind("user", account.users, Rule.OWNED),
    ids.Zone: Kind("zone", place.zone, Rule.OFFERED),
    ids.Pod: Kind("pod", place.pod, Rule.ADMINS),
    ids.Cluster: Kind("cluster", place.cluster, Rule.ADMINS),
    ids.Host: Kind("host", host.host, Rule.ADMINS),
    ids.Fleet: Kind("fleet", host.fleet, Rule.ADMINS),
    ids.StoragePool: Kind("storage pool", host.storage_pool, Rule.ADMINS),
    ids.VlanIpRange: Kind("VLAN IP range", network.vlan_ip_range, Rule.ADMINS),
    ids.PublicIp: Kind("public IP address", network.public_ip, Rule.OWNED),
    ids.ServiceOffering: Kind("service offering", offering.service_offering, Rule.OFFERED),
    ids.DiskOffering: Kind("disk offering", offering.disk_offering, Rule.OFFERED),
    ids.NetworkOffering: Kind("network offering", offering.network_offering, Rule.EVERYONE),
    ids.Network: Kind("network", network.network, Rule.OWNED_OR_SHARED),
    ids.Nic: Kind("NIC", network.nic, Rule.VIA_VM),
    ids.PortForwardingRule: Kind("port forwarding rule", network.port_forwarding_rule, Rule.OWNED),
    ids.FirewallRule: Kind("firewall rule", rule.firewall_rule, Rule.OWNED),
    ids.IpForwardingRule: Kind("IP forwarding rule", rule.ip_forwarding_rule, Rule.OWNED),
    ids.LoadBalancerRule: Kind("load balancer rule", rule.load_balancer_rule, Rule.OWNED),
    ids.RemoteAccessVpn: Kind("remote access VPN", vpn.remote_access_vpn, Rule.OWNED),
    ids.VpnUser: Kind("VPN user", vpn.vpn_user, Rule.OWNED),
    ids.Template: Kind("template", template.template, Rule.OWNED_OR_PUBLIC),
    ids.OsType: Kind("OS type", template.os_type, Rule.EVERYONE),
    ids.OsCategory: Kind("OS category", template.os_category, Rule.EVERYONE),
    ids.Volume: Kind("volume", volume.volume, Rule.OWNED),
    ids.Vm: Kind("virtual machine", vm.vm, Rule.OWNED, (vm.vm.c.kind == str(VmKind.USER),)),
    ids.InstanceGroup: Kind("instance group", vm.instance_group, Rule.OWNED),
    ids.SshKeyPair: Kind("SSH key pair", ssh_key.ssh_key_pair, Rule.OWNED),
    ids.Alert: Kind("alert", event.alert, Rule.ADMINS),
    ids.Router: Kind("router", vm.vm, Rule.OWNED, (vm.vm.c.kind == str(VmKind.ROUTER),)),
    ids.Job: Kind("job", job.job, Rule.OWNED),
    ids.Event: Kind("event", event.event, Rule.OWNED),
}
