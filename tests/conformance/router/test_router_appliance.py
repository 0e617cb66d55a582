"""What guests, and the world outside, get from a router: every claim shown with packets."""

import os
import signal
import socket

import msgspec
import pytest
from router_world import (
    DB,
    DB_DATA,
    DOMAIN,
    INTERNET_IP,
    OUTSIDE_IP,
    PUBLIC_IP,
    ROUTER_IP,
    SILENCE_SECONDS,
    TO_WEB,
    TO_WEB_RANGE,
    WEB,
    WEB_DATA,
    Guest,
    RunningRouter,
    World,
    config,
    connected,
    listening,
    name_server,
    reaches,
    run,
    socket_in,
    until,
)

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import router_control
from pileus.wire.appliance import RouterCounters, Status
from pileus.wire.operations import Reason
from pileus.wire.router import PortForward, fingerprint


def counters(router: RunningRouter) -> RouterCounters:
    socket_path = router.state / router.world.router_name / "control"
    reply = router.runner.run(router_control.ask(socket_path, Status(), 10))
    assert reply.counters is not None
    return reply.counters


def test_a_guest_gets_the_lease_that_was_chosen_for_it(router: RunningRouter, web: Guest) -> None:
    router.start()
    lease = web.take_lease()
    assert lease["ip"] == "10.1.1.5"
    assert lease["mask"] == "24"
    assert lease["router"] == lease["server"] == lease["dns"] == ROUTER_IP
    assert lease["domain"] == DOMAIN
    assert lease["hostname"] == "web"


def test_a_guest_with_its_default_network_elsewhere_gets_no_gateway(router: RunningRouter, web: Guest) -> None:
    router.start(config(leases=(msgspec.structs.replace(WEB, default_gateway=False),)))
    lease = web.take_lease()
    assert lease["ip"] == "10.1.1.5"
    assert lease["router"] == ""


def test_a_stranger_gets_no_lease(router: RunningRouter, db: Guest) -> None:
    router.start()
    assert db.take_lease() == {}


def test_an_address_goes_to_the_next_guest_at_once(router: RunningRouter, web: Guest, db: Guest) -> None:
    router.start()
    assert web.take_lease()["ip"] == "10.1.1.5"
    router.configure(config(2, leases=(msgspec.structs.replace(WEB, mac=db.mac, hostname="next"),)))
    lease = db.take_lease()
    assert (lease["ip"], lease["hostname"]) == ("10.1.1.5", "next")
    assert web.take_lease() == {}
    assert counters(router).dnsmasq_starts == 1


def test_guests_learn_how_much_fits_into_a_packet_of_a_tunnel(router: RunningRouter, web: Guest, world: World) -> None:
    run("ip", "link", "set", world.bridges[0], "mtu", "1450")
    router.start()
    assert web.take_lease()["mtu"] == "1450"


def test_names_of_guests_and_of_the_world_resolve(router: RunningRouter, web: Guest, world: World) -> None:
    with name_server(world):
        router.start(config(leases=(WEB, DB), guests=(WEB_DATA, DB_DATA)))
        web.take_lease()
        assert "Address: 10.1.1.6\n" in web.resolve(f"db.{DOMAIN}")
        assert f"Address: {INTERNET_IP}\n" in web.resolve("www.example.test")
        assert "NXDOMAIN" in web.resolve(f"nobody.{DOMAIN}")


def test_other_name_servers_are_used_without_a_new_dnsmasq(router: RunningRouter, web: Guest, world: World) -> None:
    with name_server(world):
        router.start(config(dns=("203.0.113.77",)))
        web.take_lease()
        router.configure(config(2))
        assert f"Address: {INTERNET_IP}\n" in web.resolve("www.example.test")
        assert counters(router).dnsmasq_starts == 1


def test_the_public_side_gets_no_service(router: RunningRouter, world: World) -> None:
    router.start()
    for port in (53, 80, 8080):
        assert not reaches(world.outside, PUBLIC_IP, port)
    query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x03cs2\x05cloud\x08internal\x00\x00\x01\x00\x01"
    with socket_in(world.outside, socket.SOCK_DGRAM, SILENCE_SECONDS) as asking:
        asking.sendto(query, (PUBLIC_IP, 53))
        with pytest.raises(TimeoutError):
            asking.recv(512)


def test_a_guest_reads_its_own_data_and_nothing_else(router: RunningRouter, web: Guest, db: Guest) -> None:
    router.start(config(leases=(WEB, DB), guests=(WEB_DATA, DB_DATA)))
    web.take_lease()
    db.take_lease()
    assert web.get("/latest/user-data") == (200, b"hello\n\xff")
    assert web.get("/latest/meta-data") == (200, b"instance-id\nlocal-ipv4\nservice-offering")
    assert web.get("/latest/meta-data/instance-id") == (200, b"i-2-5-VM")
    assert web.get("/latest/service-offering") == (200, b"Small Instance")
    assert db.get("/latest/instance-id") == (200, b"i-2-6-VM")
    assert db.get("/latest/user-data")[0] == 404
    assert db.get("/latest/instance-id", X_Forwarded_For="10.1.1.5") == (200, b"i-2-6-VM")
    assert web.get("/latest/meta-data/nothing")[0] == 404
    assert web.get("/../../etc/passwd")[0] == 404


def test_an_address_that_is_no_guests_reads_nothing(router: RunningRouter, web: Guest) -> None:
    router.start()
    run("ip", "-n", web.namespace, "addr", "add", "10.1.1.99/24", "dev", "eth0")
    assert web.get("/latest/meta-data")[0] == 404
    assert web.password("send_my_password") == "bad_request"


def test_a_password_is_served_until_it_is_saved_and_never_again(router: RunningRouter, web: Guest) -> None:
    router.start()
    web.take_lease()
    assert web.password("send_my_password") == "s3cret:Pw"
    assert web.password("send_my_password") == "s3cret:Pw"
    assert web.password("saved_password") == "saved_password"
    assert web.password("send_my_password") == "saved_password"
    assert "s3cret" not in (router.state / router.world.router_name / "appliance/applied.json").read_text()
    router.configure(config(2, port_forwards=(TO_WEB,)))
    assert web.password("send_my_password") == "saved_password"
    reset = msgspec.structs.replace(WEB_DATA, password="another", password_id="p2")
    router.configure(config(3, guests=(reset,)))
    assert web.password("send_my_password") == "another"


def test_a_saved_password_stays_saved_when_the_appliance_is_killed(router: RunningRouter, web: Guest) -> None:
    facts = router.start()
    web.take_lease()
    web.password("saved_password")
    kill_appliance(router)
    router.runner.run(router.launcher.revive())
    assert web.password("send_my_password") == "saved_password"
    assert router.configure(config()) == facts


def test_outbound_connections_leave_with_the_source_nat_address(
    router: RunningRouter, web: Guest, world: World
) -> None:
    router.start()
    web.take_lease()
    with listening(world.outside, 7000) as server, connected(web.namespace, INTERNET_IP, 7000) as client:
        accepted, peer = server.accept()
        with accepted:
            assert peer[0] == PUBLIC_IP
            client.sendall(b"out")
            assert accepted.recv(3) == b"out"
            accepted.sendall(b"back")
            assert client.recv(4) == b"back"


def test_port_forwards_lead_in_with_the_callers_address(router: RunningRouter, web: Guest, world: World) -> None:
    router.start(config(port_forwards=(TO_WEB, TO_WEB_RANGE)))
    web.take_lease()
    for public, guest in ((8001, 80), (9000, 9000), (9010, 9010)):
        with listening(web.namespace, guest) as server, connected(world.outside, PUBLIC_IP, public):
            accepted, peer = server.accept()
            accepted.close()
            assert peer[0] == OUTSIDE_IP


def test_a_shifted_range_leads_port_by_port(router: RunningRouter, web: Guest, world: World) -> None:
    forward = PortForward("f", PUBLIC_IP, "udp", 5000, 5002, "10.1.1.5", 6000, 6002)
    router.start(config(port_forwards=(forward,)))
    web.take_lease()
    with socket_in(web.namespace, socket.SOCK_DGRAM) as server, socket_in(world.outside, socket.SOCK_DGRAM) as client:
        server.bind(("0.0.0.0", 6002))
        client.sendto(b"third", (PUBLIC_IP, 5002))
        assert server.recv(10) == b"third"


def test_guests_reach_their_own_public_address(router: RunningRouter, web: Guest, db: Guest) -> None:
    router.start(config(leases=(WEB, DB), guests=(WEB_DATA, DB_DATA), port_forwards=(TO_WEB,)))
    web.take_lease()
    db.take_lease()
    with listening(web.namespace, 80) as server, connected(db.namespace, PUBLIC_IP, 8001):
        accepted, _ = server.accept()
        accepted.close()


def test_nothing_else_comes_in(router: RunningRouter, web: Guest, world: World) -> None:
    router.start(config(port_forwards=(TO_WEB,)))
    web.take_lease()
    run("ip", "-n", world.outside, "route", "add", "10.1.1.0/24", "via", PUBLIC_IP)
    with listening(web.namespace, 80), listening(web.namespace, 22):
        assert reaches(world.outside, PUBLIC_IP, 8001)
        assert not reaches(world.outside, "10.1.1.5", 80)
        assert not reaches(world.outside, "10.1.1.5", 22)
        assert not reaches(world.outside, PUBLIC_IP, 22)


def test_guests_reach_no_control_plane_through_the_router(router: RunningRouter, web: Guest, world: World) -> None:
    router.start()
    web.take_lease()
    run("ip", "-n", world.outside, "addr", "add", "169.254.3.1/16", "dev", "eth0")
    with listening(world.outside, 7000):
        assert reaches(web.namespace, INTERNET_IP, 7000)
        assert not reaches(web.namespace, "169.254.3.1", 7000)
    assert not reaches(web.namespace, PUBLIC_IP, 80)
    assert not reaches(web.namespace, ROUTER_IP, 22)


def test_a_rule_that_goes_ends_its_connections_and_disturbs_no_other(
    router: RunningRouter, web: Guest, world: World
) -> None:
    other = PortForward("f3", PUBLIC_IP, "tcp", 8443, 8443, "10.1.1.5", 443, 443)
    router.start(config(port_forwards=(TO_WEB, other)))
    web.take_lease()
    with (
        listening(web.namespace, 80) as going,
        listening(web.namespace, 443) as staying,
        listening(world.outside, 7000) as outside,
        connected(world.outside, PUBLIC_IP, 8001) as to_going,
        connected(world.outside, PUBLIC_IP, 8443) as to_staying,
        connected(web.namespace, INTERNET_IP, 7000) as out,
    ):
        pairs = [(going.accept()[0], to_going), (staying.accept()[0], to_staying), (outside.accept()[0], out)]
        router.configure(config(2, port_forwards=(other,)))
        for server, client in pairs[1:]:
            client.sendall(b"still")
            assert server.recv(5) == b"still"
        pairs[0][0].settimeout(SILENCE_SECONDS)
        pairs[0][1].sendall(b"gone?")
        with pytest.raises(TimeoutError):
            pairs[0][0].recv(5)
        assert not reaches(world.outside, PUBLIC_IP, 8001)
        for server, _ in pairs:
            server.close()
    assert counters(router).dnsmasq_starts == 1


def test_a_public_address_that_goes_takes_no_other_along(router: RunningRouter, web: Guest, world: World) -> None:
    first = config().public[0]
    second = msgspec.structs.replace(first, ip="203.0.113.11", source_nat=False)
    forward = msgspec.structs.replace(TO_WEB, ip="203.0.113.11")
    router.start(config(public=(first, second), port_forwards=(forward,)))
    web.take_lease()
    with listening(web.namespace, 80):
        assert reaches(world.outside, "203.0.113.11", 8001)
        third = msgspec.structs.replace(second, source_nat=True)
        router.configure(config(2, public=(third,), port_forwards=(forward,)))
        assert reaches(world.outside, "203.0.113.11", 8001)
    assert PUBLIC_IP not in run("ip", "-n", world.router_namespace, "addr")
    with listening(world.outside, 7000) as server, connected(web.namespace, INTERNET_IP, 7000):
        accepted, peer = server.accept()
        accepted.close()
        assert peer[0] == "203.0.113.11"


def test_a_new_public_address_is_announced_to_its_neighbours(router: RunningRouter, world: World) -> None:
    router.start(config(public=()))
    with socket_in(world.outside, frames_of=0x0806) as wire:
        router.configure(config(2))
        sender = socket.inet_aton(PUBLIC_IP)
        mac = bytes.fromhex(world.spec().nics[1].mac.replace(":", ""))
        while (frame := wire.recv(100))[28:32] != sender or frame[38:42] != sender:
            continue
    assert frame[:6] == b"\xff" * 6
    assert frame[6:12] == frame[22:28] == mac


def test_what_claims_to_come_from_elsewhere_is_not_carried(router: RunningRouter, web: Guest, world: World) -> None:
    router.start()
    web.take_lease()
    # Out there nobody would mind.
    run("ip", "-n", world.outside, "route", "add", "192.0.2.0/24", "via", PUBLIC_IP)
    with socket_in(world.outside, socket.SOCK_DGRAM, SILENCE_SECONDS) as far:
        far.bind((INTERNET_IP, 7000))
        with socket_in(web.namespace, socket.SOCK_DGRAM) as honest:
            honest.sendto(b"honest", (INTERNET_IP, 7000))
        assert far.recv(10) == b"honest"
        run("ip", "-n", web.namespace, "addr", "add", "192.0.2.66/32", "dev", "eth0")
        with socket_in(web.namespace, socket.SOCK_DGRAM) as spoofing:
            spoofing.bind(("192.0.2.66", 0))
            spoofing.sendto(b"spoofed", (INTERNET_IP, 7000))
        with pytest.raises(TimeoutError):
            far.recv(10)


def test_a_bad_config_is_refused_and_the_old_one_stays(router: RunningRouter, world: World, web: Guest) -> None:
    facts = router.start(config(port_forwards=(TO_WEB,)))
    web.take_lease()
    before = world.rules()
    bad = msgspec.structs.replace(TO_WEB, guest_ip="10.1.1.5; flush ruleset")
    with pytest.raises(Refused) as refused:
        router.configure(config(2, port_forwards=(bad,)))
    assert refused.value.reason is Reason.REJECTED
    assert world.rules() == before
    assert router.configure(config(1, port_forwards=(TO_WEB,))) == facts


def test_a_config_that_fails_halfway_is_taken_back(router: RunningRouter, world: World, web: Guest) -> None:
    without = config(1, services=("dhcp", "dns", "gateway", "source-nat", "user-data"))
    facts = router.start(without)
    web.take_lease()
    before = world.rules()
    with listening(world.router_namespace, 8080), pytest.raises(Refused) as refused:
        router.configure(config(2, leases=(WEB, DB), port_forwards=(TO_WEB,)))
    assert refused.value.reason is Reason.FAILED
    assert world.rules() == before
    assert router.configure(without) == facts
    assert "NXDOMAIN" in web.resolve(f"db.{DOMAIN}")
    assert router.configure(config(2)).generation == 2


def test_an_older_generation_is_refused_and_the_same_changes_nothing(router: RunningRouter) -> None:
    router.start(config(5))
    with pytest.raises(Refused) as refused:
        router.configure(config(4))
    assert refused.value.reason is Reason.STALE_EPOCH
    assert router.configure(config(5)) == router.configure(config(5))
    assert counters(router).dnsmasq_starts == 1


def test_a_killed_appliance_comes_back_with_what_it_had(router: RunningRouter, world: World, web: Guest) -> None:
    wanted = config(7, port_forwards=(TO_WEB, TO_WEB_RANGE))
    router.start(wanted)
    web.take_lease()
    before = world.rules()
    with listening(world.outside, 7000) as server, connected(web.namespace, INTERNET_IP, 7000) as client:
        accepted, _ = server.accept()
        kill_appliance(router)
        seen = router.runner.run(router.launcher.seen())
        assert [one.running for one in seen] == [False]
        router.runner.run(router.launcher.revive())
        assert [one.running for one in router.runner.run(router.launcher.seen())] == [True]
        client.sendall(b"alive")
        assert accepted.recv(5) == b"alive"
        accepted.close()
    facts = router.configure(wanted)
    assert (facts.generation, facts.fingerprint) == (7, fingerprint(wanted))
    assert world.rules() == before
    assert len(world.pids("dnsmasq")) == 1
    assert web.take_lease()["ip"] == "10.1.1.5"


def test_a_killed_dnsmasq_is_started_again(router: RunningRouter, world: World, web: Guest) -> None:
    router.start()
    (killed,) = world.pids("dnsmasq")
    os.kill(killed, signal.SIGKILL)
    until(lambda: counters(router).dnsmasq_starts == 2, "dnsmasq was not started again")
    assert web.take_lease()["ip"] == "10.1.1.5"


def kill_appliance(router: RunningRouter) -> None:
    (pid,) = router.world.pids("pileus.appliance.router")
    os.kill(pid, signal.SIGKILL)
    until(lambda: not router.world.pids("pileus.appliance.router"), "the appliance does not end")
    router.forget()
