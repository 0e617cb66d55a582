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


class RouterConfig(Struct, frozen=True):
    """Everything a router must do, at one generation. Lists are sorted by the server, so equal configs hash equal.

    `gateway` is the way out of guests and router when the router itself is not it: a Direct network's own gateway.
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


def fingerprint(config: RouterConfig) -> str:
    """SHA-256 over the config without its generation: equal means the same rules, whenever they were made."""
    return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(config, generation=0))).hexdigest()
