"""The firewall, static NAT and counts of a router, shown with packets; one router for all of it."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec
import pytest
from router_site import (
    OFFICE_IP,
    PING,
    PUBLIC,
    SECOND_IP,
    SERVICES,
    SILENCE_SECONDS,
    THIRD_IP,
    Pinger,
    Site,
    closed,
    pings,
    silent,
    site,
)
from router_world import (
    INTERNET_IP,
    PUBLIC_IP,
    ROUTER_IP,
    TO_WEB,
    connected,
    listening,
    reaches,
    run,
    socket_in,
    until,
)

from pileus.agent.backend import Refused
from pileus.appliance.router.sets import FIREWALL
from pileus.sandbox.watchdog import Watchdog
from pileus.wire.appliance import Configure, encode
from pileus.wire.operations import Reason
from pileus.wire.router import FirewallRule, PortForward, RemoteAccessVpn, StaticNat, fingerprint

WEB_IP, DB_IP = "10.1.1.5", "10.1.1.6"
OPEN = FirewallRule("open", PUBLIC_IP, "tcp", 8001, 8001)
OFFICE = FirewallRule("office", PUBLIC_IP, "tcp", 8000, 8010, cidrs=("192.0.2.0/24",))
TO_SECOND = FirewallRule("second", SECOND_IP, "tcp", 1, 65535)
OF_DB = StaticNat(SECOND_IP, DB_IP)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, watchdog: Watchdog) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), watchdog) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def servers(here: Site) -> Iterator[dict[str, socket.socket]]:
    """Both guests listen on ports 80 and 443."""
    with ExitStack() as stack:
        yield {
            f"{name}:{port}": stack.enter_context(listening(guest.namespace, port))
            for name, guest in (("web", here.web), ("db", here.db))
            for port in (80, 443)
        }


def met(
    stack: ExitStack, namespace: str, ip: str, port: int, server: socket.socket, source: str = ""
) -> tuple[socket.socket, socket.socket]:
    """A connection from outside, and its other end, which sees who it is."""
    client = stack.enter_context(connected(namespace, ip, port, source=source))
    while True:
        accepted, peer = server.accept()
        if peer == client.getsockname():
            return client, stack.enter_context(accepted)
        accepted.close()


def talk(client: socket.socket, server: socket.socket, seconds: float = 10) -> bool:
    """Do bytes get from one end to the other?"""
    server.settimeout(seconds)
    try:
        client.sendall(b"talk")
        return server.recv(4) == b"talk"
    except TimeoutError:
        return False


def test_a_forward_leads_in_only_where_a_rule_lets_it(here: Site) -> None:
    outside = here.world.outside
    here.declare(port_forwards=(TO_WEB,))
    assert closed(outside, PUBLIC_IP, 8001)
    here.declare(port_forwards=(TO_WEB,), firewall=(OPEN,))
    assert reaches(outside, PUBLIC_IP, 8001)
    here.declare(port_forwards=(TO_WEB,), firewall=(OFFICE,))
    assert reaches(outside, PUBLIC_IP, 8001, OFFICE_IP)
    assert closed(outside, PUBLIC_IP, 8001)
    # The port that counts is the one that was asked for, not the guest's.
    here.declare(port_forwards=(TO_WEB,), firewall=(FirewallRule("80", PUBLIC_IP, "tcp", 80, 80),))
    assert closed(outside, PUBLIC_IP, 8001)


def test_without_the_service_every_forward_is_open_and_ping_is_not_answered(here: Site) -> None:
    services = tuple(one for one in SERVICES if one != "firewall")
    here.declare(services=services, port_forwards=(TO_WEB,), firewall=(PING,))
    assert reaches(here.world.outside, PUBLIC_IP, 8001)
    assert silent(here.world.outside, PUBLIC_IP)


def test_ping_is_answered_where_a_rule_lets_it_in(here: Site) -> None:
    outside = here.world.outside
    here.declare()
    assert silent(outside, PUBLIC_IP)
    here.declare(firewall=(msgspec.structs.replace(PING, icmp_type=13),))
    assert silent(outside, PUBLIC_IP)
    here.declare(firewall=(msgspec.structs.replace(PING, cidrs=(f"{OFFICE_IP}/32",)),))
    assert pings(outside, PUBLIC_IP, OFFICE_IP)
    assert silent(outside, PUBLIC_IP)
    for code in (0, -1):
        here.declare(firewall=(msgspec.structs.replace(PING, icmp_code=code),))
        assert pings(outside, PUBLIC_IP)
        assert silent(outside, THIRD_IP)


def test_rules_that_overlap_let_in_what_any_of_them_lets_in(here: Site) -> None:
    outside = here.world.outside
    narrow = FirewallRule("narrow", PUBLIC_IP, "tcp", 8001, 8001, cidrs=(f"{OFFICE_IP}/32", "192.0.2.0/25"))
    wide = FirewallRule("wide", PUBLIC_IP, "tcp", 1, 9000, cidrs=("0.0.0.0/0",))
    for firewall in ((narrow, OFFICE), (narrow, OFFICE, wide), (wide, narrow), (OFFICE, wide)):
        here.declare(port_forwards=(TO_WEB,), firewall=firewall)
        assert reaches(outside, PUBLIC_IP, 8001, OFFICE_IP)
        assert (reaches if wide in firewall else closed)(outside, PUBLIC_IP, 8001)


def test_connections_end_with_the_rule_that_let_them_in_and_not_where_another_does(
    here: Site, servers: dict[str, socket.socket]
) -> None:
    outside = here.world.outside
    other = PortForward("f3", PUBLIC_IP, "tcp", 8443, 8443, WEB_IP, 443, 443)
    https = FirewallRule("https", PUBLIC_IP, "tcp", 8443, 8443)
    forwards = (TO_WEB, other)
    here.declare(port_forwards=forwards, firewall=(OFFICE, OPEN, https))
    with ExitStack() as stack:
        stranger, to_stranger = met(stack, outside, PUBLIC_IP, 8001, servers["web:80"])
        officer, to_officer = met(stack, outside, PUBLIC_IP, 8001, servers["web:80"], OFFICE_IP)
        secure, to_secure = met(stack, outside, PUBLIC_IP, 8443, servers["web:443"])
        here.declare(port_forwards=forwards, firewall=(OFFICE, https))
        assert not talk(stranger, to_stranger, SILENCE_SECONDS)
        # The officer came in by the wider rule, and the other one takes over, whoever speaks first.
        assert talk(to_officer, officer)
        assert talk(officer, to_officer)
        assert talk(secure, to_secure)
        here.declare(port_forwards=forwards, firewall=(https,))
        assert not talk(to_officer, officer, SILENCE_SECONDS)
        assert talk(secure, to_secure)


def test_static_nat_leads_both_ways_with_every_protocol(here: Site, servers: dict[str, socket.socket]) -> None:
    outside = here.world.outside
    echo = FirewallRule("echo", SECOND_IP, "icmp")
    udp = FirewallRule("udp", SECOND_IP, "udp", 5000, 5000)
    here.declare(static_nats=(OF_DB,), firewall=(TO_SECOND, echo, udp))
    with ExitStack() as stack:
        met(stack, outside, SECOND_IP, 443, servers["db:443"])
    assert pings(outside, SECOND_IP)
    with socket_in(here.db.namespace, socket.SOCK_DGRAM) as inside, socket_in(outside, socket.SOCK_DGRAM) as client:
        inside.bind(("0.0.0.0", 5000))
        client.sendto(b"datagram", (SECOND_IP, 5000))
        assert inside.recv(10) == b"datagram"
    with listening(outside, 7000) as server:
        for guest, address in ((here.db, SECOND_IP), (here.web, PUBLIC_IP)):
            with connected(guest.namespace, INTERNET_IP, 7000):
                accepted, peer = server.accept()
                accepted.close()
                assert peer[0] == address


def test_static_nat_is_as_closed_as_the_firewall_says(here: Site) -> None:
    outside = here.world.outside
    here.declare(static_nats=(OF_DB,))
    assert closed(outside, SECOND_IP, 443)
    assert silent(outside, SECOND_IP)
    here.declare(static_nats=(OF_DB,), firewall=(msgspec.structs.replace(TO_SECOND, start=443, end=443),))
    assert reaches(outside, SECOND_IP, 443)
    assert closed(outside, SECOND_IP, 80)


def test_guests_reach_a_static_address_of_their_own_network(here: Site) -> None:
    here.declare(static_nats=(OF_DB,))
    for guest in (here.web, here.db):
        assert reaches(guest.namespace, SECOND_IP, 80)


def test_connections_end_with_their_static_nat(here: Site, servers: dict[str, socket.socket]) -> None:
    outside = here.world.outside
    here.declare(static_nats=(OF_DB,), firewall=(TO_SECOND,))
    with listening(outside, 7000) as server, ExitStack() as stack:
        came, to_came = met(stack, outside, SECOND_IP, 80, servers["db:80"])
        went = stack.enter_context(connected(here.db.namespace, INTERNET_IP, 7000))
        to_went = stack.enter_context(server.accept()[0])
        other = stack.enter_context(connected(here.web.namespace, INTERNET_IP, 7000))
        to_other = stack.enter_context(server.accept()[0])
        here.declare(static_nats=(StaticNat(SECOND_IP, WEB_IP),), firewall=(TO_SECOND,))
        assert not talk(came, to_came, SILENCE_SECONDS)
        assert not talk(went, to_went, SILENCE_SECONDS)
        assert talk(other, to_other)
        assert reaches(outside, SECOND_IP, 80)


def test_bytes_are_counted_by_address_and_by_rule(here: Site, servers: dict[str, socket.socket]) -> None:
    outside = here.world.outside
    idle = FirewallRule("idle", THIRD_IP, "tcp", 1, 65535)
    rules = {"port_forwards": (TO_WEB,), "firewall": (OPEN, idle), "static_nats": (OF_DB,)}
    here.declare()
    here.declare(**rules)

    def traffic() -> dict[str, tuple[int, int]]:
        counted = here.counters()
        addresses = {one.ip: (one.received_bytes, one.sent_bytes) for one in counted.addresses}
        return addresses | {one.id: (one.received_bytes, one.sent_bytes) for one in counted.rules}

    before = traffic()
    assert before.keys() == {PUBLIC_IP, SECOND_IP, THIRD_IP, OPEN.id, idle.id, TO_WEB.id}
    with ExitStack() as stack:
        client, server = met(stack, outside, PUBLIC_IP, 8001, servers["web:80"])
        client.sendall(b"x" * 20_000)
        assert len(server.recv(20_000, socket.MSG_WAITALL)) == 20_000
        server.sendall(b"y" * 90_000)
        assert len(client.recv(90_000, socket.MSG_WAITALL)) == 90_000
        after = traffic()
        for name in (PUBLIC_IP, OPEN.id, TO_WEB.id):
            received, sent = (now - then for now, then in zip(after[name], before[name], strict=True))
            assert 20_000 < received < 30_000
            assert 90_000 < sent < 100_000
        assert after[idle.id] == (0, 0)
        assert after[THIRD_IP] == before[THIRD_IP]
        # Neither another rule, nor another shape, nor a new life of the program takes anything away.
        here.declare(**rules | {"firewall": (OPEN, idle, PING)})
        assert kept(after, traffic())
        here.declare(**rules, domain="other.test", services=(*SERVICES, "password"))
        assert kept(after, traffic())
        kill(here)
        here.router.runner.run(here.router.launcher.revive())
        assert kept(after, traffic())
        assert talk(client, server)


def test_no_packet_is_lost_while_rules_come_and_go(here: Site) -> None:
    outside = here.world.outside
    echo = FirewallRule("echo", SECOND_IP, "icmp")
    here.declare(static_nats=(OF_DB,), firewall=(echo, PING))
    with Pinger(outside, SECOND_IP) as through, Pinger(outside, PUBLIC_IP) as to_router:
        through.start()
        to_router.start()
        for number in range(10):
            more = tuple(FirewallRule(f"m{one}", THIRD_IP, "tcp", 1 + one, 5 + one) for one in range(number))
            forwards = (TO_WEB,) if number % 2 else ()
            services = (*SERVICES, "password") if number % 3 == 0 else SERVICES
            here.declare(services=services, static_nats=(OF_DB,), firewall=(*more, echo, PING), port_forwards=forwards)
        through.stop()
        to_router.stop()
        for pinger in (through, to_router):
            assert pinger.lost == []
            assert pinger.answered > 20


def test_a_kill_between_changes_leaves_what_was_declared_and_nothing_else(here: Site) -> None:
    kept = tuple(FirewallRule(f"k{one}", PUBLIC_IP, "tcp", one, one + 5) for one in range(1, 50))
    here.declare(firewall=kept)
    expected = elements(here)
    for number in range(4):
        changing = (*kept[number:], FirewallRule("x", SECOND_IP, "udp", 5, 5))
        with ExitStack() as stack:
            # A message on its way, and no one who waits for the answer.
            line = configure_line(here, changing, number)
            channel = stack.enter_context(control(here))
            channel.sendall(line[: len(line) * number // 3] if number < 3 else line)
            kill(here)
        here.router.runner.run(here.router.launcher.revive())
        facts = here.declare(firewall=kept)
        assert facts.fingerprint == fingerprint(here.wanted)
        assert elements(here) == expected


def test_a_change_that_the_kernel_refuses_is_taken_back(here: Site) -> None:
    facts = here.declare(port_forwards=(TO_WEB,), firewall=(OPEN,))
    before = here.world.rules()
    inside = ["ip", "netns", "exec", here.world.router_namespace, "nft"]
    # Somebody has a hand in our table: the element that is to come is there.
    run(*inside, "add", "element", "ip", "pileus", "kept", f"{{ 9000-9010 . {PUBLIC_IP} . tcp : {DB_IP} }}")
    more = PortForward("f2", PUBLIC_IP, "tcp", 9000, 9000, WEB_IP, 9000, 9000)
    with pytest.raises(Refused) as refused:
        here.declare(port_forwards=(TO_WEB, more), firewall=(OPEN, PING))
    assert refused.value.reason is Reason.FAILED
    assert "kept" in refused.value.text
    assert here.world.rules() == before
    assert here.router.configure(msgspec.structs.replace(here.wanted, port_forwards=(TO_WEB,), firewall=(OPEN,)))
    assert here.declare(port_forwards=(TO_WEB,), firewall=(OPEN,)).fingerprint == facts.fingerprint


def test_a_router_without_a_machine_of_its_own_refuses_a_vpn(here: Site) -> None:
    with pytest.raises(Refused) as refused:
        here.declare(vpn=RemoteAccessVpn(PUBLIC_IP, "key", "10.1.2.1", "10.1.2.2", "10.1.2.8"))
    assert refused.value.reason is Reason.REJECTED
    assert "vpn" in refused.value.text


def test_the_routers_own_services_stay_closed_to_the_outside(here: Site) -> None:
    everything = FirewallRule("all", PUBLIC_IP, "tcp", 1, 65535)
    here.declare(firewall=(everything, msgspec.structs.replace(everything, id="udp", protocol="udp")))
    for port in (53, 80, 8080):
        assert closed(here.world.outside, PUBLIC_IP, port)
    run("ip", "-n", here.world.outside, "route", "replace", "10.1.1.0/24", "via", PUBLIC_IP)
    assert closed(here.world.outside, ROUTER_IP, 80)
    assert closed(here.world.outside, WEB_IP, 80)
    assert {one.ip for one in PUBLIC} == {one.ip for one in here.counters().addresses}


def kept(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> bool:
    """Is what was counted still counted, give or take what ends of connections say late?"""
    names = (PUBLIC_IP, OPEN.id, TO_WEB.id)
    return all(then <= now < then + 2000 for name in names for then, now in zip(before[name], after[name], strict=True))


def elements(here: Site) -> list[set[str]]:
    """Elements of the maps and sets that rules are in; the kernel lists them in the order of their coming."""
    listings = [here.listed("map", name) for name in (*FIREWALL, "kept")]
    inside = [listing.partition("elements = {")[2].partition("}")[0] for listing in listings]
    return [{" ".join(one.split()) for one in text.split(",")} for text in inside] + [here.marks()]


def configure_line(here: Site, firewall: tuple[FirewallRule, ...], number: int) -> bytes:
    here.generation += 1
    return (
        encode(Configure(msgspec.structs.replace(here.wanted, generation=here.generation, firewall=firewall))) + b"\n"
    )


def control(here: Site) -> socket.socket:
    channel = socket.socket(socket.AF_UNIX)
    directory = os.open(here.router.state / here.world.router_name, os.O_PATH)
    try:
        channel.connect(f"/proc/self/fd/{directory}/control")
    finally:
        os.close(directory)
    return channel


def kill(here: Site) -> None:
    (pid,) = here.world.pids("pileus.appliance.router")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not here.world.pids("pileus.appliance.router"), "the appliance does not end")
