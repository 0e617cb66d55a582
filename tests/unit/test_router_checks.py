"""What a router refuses to apply, and what it takes."""

import msgspec
import pytest

from pileus.appliance.router.checks import check
from pileus.appliance.router.errors import ConfigRefused
from pileus.wire.operations import Reason
from pileus.wire.router import (
    FirewallRule,
    GuestData,
    Lease,
    LoadBalancer,
    PortForward,
    PublicAddress,
    RemoteAccessVpn,
    RouterConfig,
    StaticNat,
    VpnUser,
)

LEASE = Lease("02:00:00:00:00:05", "10.1.1.5", "web")
OTHER = Lease("02:00:00:00:00:06", "10.1.1.6", "db")
GUEST = GuestData("10.1.1.5", {"instance-id": "i-2-5-VM"}, "aGk=", "pw", "p1")
PUBLIC = PublicAddress("203.0.113.10", 24, "203.0.113.1", source_nat=True)
FORWARD = PortForward("f1", "203.0.113.10", "tcp", 80, 89, "10.1.1.5", 8080, 8089)
SECOND = PublicAddress("203.0.113.11", 24, "203.0.113.1")
RULE = FirewallRule("r1", "203.0.113.10", "tcp", 80, 89, cidrs=("198.51.100.0/24", "0.0.0.0/0"))
PING = FirewallRule("r2", "203.0.113.10", "icmp", icmp_type=8, icmp_code=0)
BALANCER = LoadBalancer("b1", "203.0.113.10", 443, 8443, "roundrobin", ("10.1.1.5", "10.1.1.6"))
VPN = RemoteAccessVpn(
    "203.0.113.10", "psk-canary", "10.1.2.1", "10.1.2.2", "10.1.2.8", (VpnUser("ann", "pw1"), VpnUser("bob", "pw2"))
)
GOOD = RouterConfig(
    network="n",
    generation=1,
    guest_ip="10.1.1.1",
    guest_prefix=24,
    domain="cs2.cloud.internal",
    dns=("192.0.2.53",),
    leases=(LEASE, OTHER),
    guests=(GUEST,),
    public=(PUBLIC,),
    port_forwards=(FORWARD,),
)


def lease(**changes: object) -> dict[str, object]:
    return {"leases": (msgspec.structs.replace(LEASE, **changes),)}


def two_leases(**changes: object) -> dict[str, object]:
    return {"leases": (LEASE, msgspec.structs.replace(OTHER, **changes))}


def guest(**changes: object) -> dict[str, object]:
    return {"guests": (msgspec.structs.replace(GUEST, **changes),)}


def public(**changes: object) -> dict[str, object]:
    return {"public": (msgspec.structs.replace(PUBLIC, **changes),), "port_forwards": ()}


def forward(**changes: object) -> dict[str, object]:
    return {"port_forwards": (msgspec.structs.replace(FORWARD, **changes),)}


def two_forwards(**changes: object) -> dict[str, object]:
    return {"port_forwards": (FORWARD, msgspec.structs.replace(FORWARD, **{"id": "f2", **changes}))}


def rule(**changes: object) -> dict[str, object]:
    return {"firewall": (msgspec.structs.replace(RULE, **changes),)}


def ping(**changes: object) -> dict[str, object]:
    return {"firewall": (msgspec.structs.replace(PING, **changes),)}


def static(ip: str = "203.0.113.11", guest_ip: str = "10.1.1.6", **changes: object) -> dict[str, object]:
    return {"public": (PUBLIC, SECOND), "static_nats": (StaticNat(ip, guest_ip),), **changes}


def balancer(**changes: object) -> dict[str, object]:
    return {"load_balancers": (msgspec.structs.replace(BALANCER, **changes),)}


def vpn(**changes: object) -> dict[str, object]:
    return {"vpn": msgspec.structs.replace(VPN, **changes)}


BAD = [
    ({"generation": -1}, "generation"),
    ({"guest_ip": "10.1.1"}, "guest_ip"),
    ({"guest_ip": "10.1.1.1/24"}, "guest_ip"),
    ({"guest_ip": "127.0.0.1"}, "guest_ip"),
    ({"guest_ip": "169.254.1.1"}, "guest_ip"),
    ({"guest_ip": "10.1.1.0"}, "guest_ip"),
    ({"guest_prefix": 31}, "guest_prefix"),
    ({"guest_prefix": 0}, "guest_prefix"),
    ({"domain": ""}, "domain"),
    ({"domain": "a..b"}, "domain"),
    ({"domain": "a\nserver=1.2.3.4"}, "domain"),
    ({"domain": "-a.b"}, "domain"),
    ({"domain": ".".join(["a" * 63] * 4)}, "domain"),
    ({"dns": ("dns.example",)}, "dns"),
    ({"dns": ("192.0.2.53#5353",)}, "dns"),
    ({"services": ("dhcp", "telnet")}, "telnet"),
    (lease(mac="02:00:00:00:00"), "MAC"),
    (lease(mac="03:00:00:00:00:05"), "MAC"),
    (lease(mac="02:00:00:00:00:05,set:x"), "MAC"),
    (lease(ip="10.1.2.5"), "10.1.2.5"),
    (lease(ip="10.1.1.1"), "router's own"),
    (lease(ip="10.1.1.255"), "host's address"),
    (lease(ip="10.1.1.5,ignore"), "IPv4"),
    (lease(hostname="web.example"), "label"),
    (lease(hostname="web\n1.2.3.4 x"), "label"),
    (lease(hostname=""), "label"),
    (lease(hostname="a" * 64), "label"),
    (two_leases(mac=LEASE.mac), "MAC address of a lease"),
    (two_leases(ip=LEASE.ip), "address of a lease"),
    (two_leases(hostname="WEB"), "hostname of a lease"),
    (guest(ip="10.9.9.9"), "10.9.9.9"),
    (guest(metadata={"../x": "y"}), "metadata key"),
    (guest(metadata={"user-data": "y"}), "metadata key"),
    (guest(metadata={"instance-id": "a\r\nb"}), "printable"),
    (guest(metadata={"instance-id": "a" * 5000}), "too long"),
    (guest(user_data="not base64!"), "base64"),
    (guest(user_data="aGk"), "base64"),
    (guest(user_data="A" * (4 * 1024 * 1024)), "longer"),
    (guest(password="a\nb"), "password"),
    (guest(password="saved_password"), "password"),
    (guest(password_id=""), "password_id"),
    (guest(password_id="../p"), "password_id"),
    ({"guests": (GUEST, GUEST)}, "address of a guest"),
    (public(ip="::1"), "IPv4"),
    (public(prefix=0), "prefix"),
    (public(prefix=33), "prefix"),
    (public(gateway="198.51.100.1"), "gateway"),
    (public(gateway="203.0.113.10"), "gateway"),
    (public(gateway=""), "gateway"),
    (public(ip="10.1.1.77", gateway="10.1.1.78"), "guest network"),
    (public(source_nat=False), "source NAT"),
    ({"public": (PUBLIC, PUBLIC)}, "public address"),
    ({"public": (PUBLIC, msgspec.structs.replace(PUBLIC, ip="203.0.113.11"))}, "source NAT"),
    (forward(ip="203.0.113.99"), "public addresses"),
    (forward(protocol="icmp"), "protocol"),
    (forward(protocol="tcp accept"), "protocol"),
    (forward(guest_ip="192.0.2.1"), "192.0.2.1"),
    (forward(guest_ip="10.1.1.1"), "router's own"),
    (forward(public_start=0, guest_start=8079), "range"),
    (forward(public_start=89, public_end=80), "range"),
    (forward(guest_end=65536), "range"),
    (forward(guest_end=8090), "length"),
    (two_forwards(id="f1", public_start=100, public_end=109), "id of a port forward"),
    (two_forwards(public_start=89, public_end=98), "overlap"),
    (vpn(ip="203.0.113.99"), "vpn: '203.0.113.99'"),
    (vpn(preshared_key=""), "pre-shared key"),
    (vpn(preshared_key="a\nb"), "pre-shared key"),
    (vpn(local_ip="10.1.2.3"), "range of addresses"),
    (vpn(first_ip="10.1.2.9"), "range of addresses"),
    (vpn(local_ip="10.1.1.77"), "guest network"),
    (vpn(local_ip="10.0.0.1", first_ip="10.1.0.0", last_ip="10.1.2.8"), "guest network"),
    (vpn(last_ip="10.1.2.8 x"), "last_ip"),
    (vpn(users=(VpnUser('a" * *', "pw"),)), "vpn user"),
    (vpn(users=(VpnUser("ann", "pw\nbob * x *"),)), "vpn user 'ann'"),
    (vpn(users=(VpnUser("ann", "a"), VpnUser("ann", "b"))), "VPN user"),
    (
        vpn(ip="203.0.113.11") | static(),
        "static NAT",
    ),
    (vpn() | forward(protocol="udp", public_start=495, public_end=504), "vpn and port forward 'f1' overlap"),
    (rule(id="a b"), "not an id"),
    (rule(ip="203.0.113.99"), "firewall rule 'r1': '203.0.113.99'"),
    (rule(protocol="sctp"), "protocol 'sctp'"),
    (rule(start=0), "0-89"),
    (rule(end=70000), "80-70000"),
    (rule(start=90), "90-89"),
    (rule(cidrs=()), "no source CIDR"),
    (rule(cidrs=("10.0.0.0/33",)), "10.0.0.0/33"),
    (rule(cidrs=("10.0.0.0/255.0.0.0",)), "10.0.0.0/255.0.0.0"),
    (rule(cidrs=("0.0.0.0/0", "10.0.0/8")), "10.0.0/8"),
    (rule(cidrs=("10.0.0.0/8 accept",)), "CIDR"),
    (ping(icmp_type=256), "ICMP type 256"),
    (ping(icmp_code=-2), "code -2"),
    (ping(icmp_type=-1), "ICMP code 0 of every type"),
    ({"firewall": (RULE, msgspec.structs.replace(PING, id="r1"))}, "id of a firewall rule"),
    (static(ip="203.0.113.10", port_forwards=()), "static NAT of '203.0.113.10'"),
    (static(ip="203.0.113.99"), "static NAT of '203.0.113.99'"),
    (static(guest_ip="10.2.0.1"), "10.2.0.1"),
    (static(guest_ip="10.1.1.1"), "router's own"),
    (static(port_forwards=(msgspec.structs.replace(FORWARD, ip="203.0.113.11"),)), "same address"),
    (static(load_balancers=(msgspec.structs.replace(BALANCER, ip="203.0.113.11"),)), "same address"),
    (balancer(id="b1\nbind *:1"), "not an id"),
    (balancer(ip="203.0.113.99"), "balancer 'b1': '203.0.113.99'"),
    (balancer(port=0), "0-0"),
    (balancer(guest_port=65536), "65536"),
    (balancer(algorithm="first"), "algorithm 'first'"),
    (balancer(members=("10.1.1.5", "10.1.2.5")), "10.1.2.5"),
    (balancer(members=("10.1.1.5", "10.1.1.5")), "member of balancer 'b1'"),
    (balancer(port=85), "balancer 'b1' and port forward 'f1' overlap"),
    ({"load_balancers": (BALANCER, msgspec.structs.replace(BALANCER, port=444))}, "id of a balancer"),
    ({"load_balancers": (BALANCER, msgspec.structs.replace(BALANCER, id="b2"))}, "address and port of balancers"),
    (static(static_nats=(StaticNat("203.0.113.11", "10.1.1.6"),) * 2), "address of a static NAT"),
]


@pytest.mark.parametrize(("changes", "named"), BAD)
def test_a_bad_value_is_refused_by_name(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigRefused) as refused:
        check(msgspec.structs.replace(GOOD, **changes), has_public_side=True)
    assert refused.value.reason is Reason.REJECTED
    assert named in refused.value.text


def test_the_text_of_a_refusal_holds_no_password() -> None:
    with pytest.raises(ConfigRefused) as refused:
        check(msgspec.structs.replace(GOOD, **guest(password="canary\n")), has_public_side=True)
    assert "canary" not in refused.value.text
    for bad in (vpn(preshared_key="canary\n"), vpn(users=(VpnUser("ann", "canary\n"),))):
        with pytest.raises(ConfigRefused) as refused:
            check(msgspec.structs.replace(GOOD, **bad), has_public_side=True)
        assert "canary" not in refused.value.text


def test_public_addresses_need_a_public_side() -> None:
    with pytest.raises(ConfigRefused):
        check(GOOD, has_public_side=False)
    check(msgspec.structs.replace(GOOD, public=(), port_forwards=()), has_public_side=False)


def test_what_was_checked_is_asked_again_where_it_leans_on_what_changed() -> None:
    before = msgspec.structs.replace(GOOD, firewall=(RULE, PING))
    moved = PublicAddress("203.0.113.20", 24, "203.0.113.1", source_nat=True)
    with pytest.raises(ConfigRefused) as refused:
        check(msgspec.structs.replace(before, public=(moved,), port_forwards=()), has_public_side=True, before=before)
    assert "firewall rule 'r1'" in refused.value.text
    with pytest.raises(ConfigRefused) as refused:
        check(msgspec.structs.replace(before, guest_ip="10.1.2.1"), has_public_side=True, before=before)
    assert "lease" in refused.value.text
    worse = msgspec.structs.replace(PING, id="r3", cidrs=("nowhere",))
    with pytest.raises(ConfigRefused) as refused:
        check(msgspec.structs.replace(before, firewall=(RULE, PING, worse)), has_public_side=True, before=before)
    assert "r3" in refused.value.text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"domain": "internal"},
        {"dns": ()},
        {"services": ()},
        {"leases": (), "guests": (), "port_forwards": ()},
        {"generation": 0},
        guest(user_data="", password="", password_id=""),
        guest(password="ü:'\"$(reboot)", metadata={"service-offering": "Small Instance, 500 MHz"}),
        public(prefix=32, gateway="198.51.100.1"),
        two_forwards(protocol="udp"),
        {"firewall": (RULE, PING), "services": ("firewall", "static-nat")},
        rule(cidrs=("198.51.100.7", "198.51.100.7/24")),
        ping(icmp_type=-1, icmp_code=-1),
        static(),
        balancer(),
        vpn(),
        vpn(users=()),
        balancer(members=(), algorithm="source"),
        two_forwards(public_start=100, public_end=109),
    ],
)
def test_a_good_config_passes(changes: dict[str, object]) -> None:
    check(msgspec.structs.replace(GOOD, **changes), has_public_side=True)
