"""The whole desired config of a virtual router: declared by the server, applied in one go by `appliance.router`."""

import hashlib

import msgspec
from msgspec import Struct


class Lease(Struct, frozen=True):
    """A fixed DHCP lease and DNS name. Without `default_gateway` the reply offers no router option."""

    mac: str
    ip: str
    hostname: str
    default_gateway: bool = True


class GuestData(Struct, frozen=True):
    """What one guest may read of itself, found by its source address.

    `user_data` is base64 as the API took it. `metadata` holds the guide's keys. `password` is served until the guest
    says `saved_password`; the router remembers what was fetched by its hash, so a re-apply does not serve it again.
    """

    ip: str
    metadata: dict[str, str]
    user_data: str = ""
    password: str = ""
    password_id: str = ""


class PublicAddress(Struct, frozen=True):
    """An address on the public side. Exactly one has `source_nat` when the network offers it."""

    ip: str
    prefix: int
    gateway: str
    source_nat: bool = False


class PortForward(Struct, frozen=True):
    """Traffic to public `ip` and ports goes to the guest. `protocol` is tcp or udp; ranges have the same length."""

    id: str
    ip: str
    protocol: str
    public_start: int
    public_end: int
    guest_ip: str
    guest_start: int
    guest_end: int


class FirewallRule(Struct, frozen=True):
    """Lets new connections to public `ip` in, by what they ask for before any translation.

    `protocol` is tcp, udp or icmp. Ports are a range; those of icmp are 0. `icmp_type` and `icmp_code` are -1 for any.
    `cidrs` are the sources; there is at least one.
    """

    id: str
    ip: str
    protocol: str
    start: int = 0
    end: int = 0
    icmp_type: int = -1
    icmp_code: int = -1
    cidrs: tuple[str, ...] = ("0.0.0.0/0",)


class StaticNat(Struct, frozen=True):
    """Public `ip` belongs to one guest whole, both ways: what it sends leaves with this address."""

    ip: str
    guest_ip: str


class LoadBalancer(Struct, frozen=True):
    """TCP connections to public `ip` and `port` are shared out among `members`, guests' addresses.

    `algorithm` is roundrobin, leastconn or source. A member that does not answer gets no connections. Without
    members connections are refused.
    """

    id: str
    ip: str
    port: int
    guest_port: int
    algorithm: str
    members: tuple[str, ...] = ()


class VpnUser(Struct, frozen=True):
    """Who may come in by the remote-access VPN."""

    name: str
    password: str


class RemoteAccessVpn(Struct, frozen=True):
    """L2TP over IPsec with a pre-shared key at public `ip`.

    Clients get addresses from `first_ip` to `last_ip`; `local_ip` is the router's end of every tunnel.
    """

    ip: str
    preshared_key: str
    local_ip: str
    first_ip: str
    last_ip: str
    users: tuple[VpnUser, ...] = ()


class RouterConfig(Struct, frozen=True):
    """Everything a router must do, at one generation. Lists are sorted by the server, so equal configs hash equal.

    With the service "firewall" nothing new comes in from outside but what a firewall rule lets in; without it every
    port forward, balancer and static NAT is open to all.
    `gateway` is the way out of guests and router when the router itself is not it: a Direct network's own gateway.
    Balancers together take at most `max_connections` at once; 0 means as many as the router can.
    """

    network: str
    generation: int
    guest_ip: str
    guest_prefix: int
    domain: str
    gateway: str = ""
    dns: tuple[str, ...] = ()
    services: tuple[str, ...] = ("dhcp", "dns", "gateway", "source-nat", "user-data", "password")
    leases: tuple[Lease, ...] = ()
    guests: tuple[GuestData, ...] = ()
    public: tuple[PublicAddress, ...] = ()
    port_forwards: tuple[PortForward, ...] = ()
    firewall: tuple[FirewallRule, ...] = ()
    static_nats: tuple[StaticNat, ...] = ()
    load_balancers: tuple[LoadBalancer, ...] = ()
    vpn: RemoteAccessVpn | None = None
    max_connections: int = 0


def fingerprint(config: RouterConfig) -> str:
    """SHA-256 over the config without its generation: equal means the same rules, whenever they were made."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(config, generation=0))).hexdigest()
