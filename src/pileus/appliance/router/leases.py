"""Turns a checked config into dnsmasq's files and arguments: pure, no I/O.

What changes when a guest comes or goes is in files that dnsmasq reads again on SIGHUP; only what is in the
arguments needs a new dnsmasq.
"""

from dataclasses import dataclass
from ipaddress import IPv4Network

from pileus.appliance.router.checks import network_of
from pileus.wire.router import RouterConfig

NO_GATEWAY = "nogateway"
ETHERNET_MTU = 1500


@dataclass(frozen=True)
class Plan:
    """`arguments` beyond those every dnsmasq of ours has; `files` by name; `leased` the (MAC, address) pairs."""

    arguments: tuple[str, ...]
    files: dict[str, str]
    leased: frozenset[tuple[str, str]]
    guest_ip: str

    @property
    def wanted(self) -> bool:
        """Is there anything for dnsmasq to do?"""
        return bool(self.arguments)


def told(config: RouterConfig) -> tuple[object, ...]:
    """Everything of a config that a plan is made from."""
    network = (config.guest_ip, config.guest_prefix, config.gateway, config.domain, config.dns)
    return (*network, "dhcp" in config.services, "dns" in config.services, config.leases)


def plan(config: RouterConfig, *, mtu: int = ETHERNET_MTU) -> Plan:
    """What dnsmasq must serve for `config` on a network that carries packets of `mtu` bytes."""
    dhcp = "dhcp" in config.services
    dns = "dns" in config.services
    arguments: list[str] = []
    if dhcp:
        arguments += _dhcp_arguments(config, network_of(config), dns=dns)
        # In a tunnel there is less room than guests assume.
        arguments += [f"--dhcp-option-force=option:mtu,{mtu}"] if mtu < ETHERNET_MTU else []
    if dhcp or dns:
        # An unqualified or own name never leaves; everything else goes to the zone's servers.
        arguments += ["--domain-needed", f"--domain={config.domain}", f"--local=/{config.domain}/"]
        arguments += ["--port=53" if dns else "--port=0"]
    return Plan(
        arguments=tuple(arguments),
        files={
            "hosts": _hosts(config),
            "dhcp-hosts": _dhcp_hosts(config),
            "servers": "".join(f"server={server}\n" for server in config.dns),
        },
        leased=frozenset((lease.mac, lease.ip) for lease in config.leases) if dhcp else frozenset(),
        guest_ip=config.guest_ip,
    )


def _dhcp_arguments(config: RouterConfig, network: IPv4Network, *, dns: bool) -> list[str]:
    arguments = [
        f"--dhcp-range={network.network_address},static,{network.netmask},infinite",
        "--dhcp-authoritative",
        "--dhcp-lease-max=65536",
        # A guest is called what the cloud calls it, whatever it says itself.
        "--dhcp-ignore-names",
        f"--dhcp-option=tag:!{NO_GATEWAY},option:router,{config.gateway or config.guest_ip}",
        f"--dhcp-option=tag:{NO_GATEWAY},option:router",
    ]
    if not dns:
        # Without an own name service the zone's servers are named; with none, the option goes out empty: not at all.
        arguments += [f"--dhcp-option={','.join(['option:dns-server', *config.dns])}"]
    return arguments


def _hosts(config: RouterConfig) -> str:
    return "".join(f"{lease.ip} {lease.hostname}.{config.domain} {lease.hostname}\n" for lease in config.leases)


def _dhcp_hosts(config: RouterConfig) -> str:
    lines = []
    for lease in config.leases:
        tag = [] if lease.default_gateway else [f"set:{NO_GATEWAY}"]
        lines.append(",".join([lease.mac, *tag, lease.ip, lease.hostname, "infinite"]))
    return "".join(f"{line}\n" for line in lines)
