"""One contract for routers in namespaces and in virtual machines: every test here runs on both, by way of the backend.

A machine takes seconds to boot, so one router serves all tests of its kind, in the order in which they stand here.
"""

import hashlib
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kvm_bench import KvmLand, can_run
from machine_world import (
    BACKEND,
    NAME,
    RATE_MBPS,
    UUID,
    Resident,
    Site,
    devices_of,
    files_below,
    spec,
    tag,
)
from router_world import (
    DB,
    DB_DATA,
    GUEST_NETWORK,
    INTERNET_IP,
    PUBLIC_IP,
    PUBLIC_NETWORK,
    TO_WEB,
    WEB,
    WEB_DATA,
    Guest,
    config,
    connected,
    listening,
    name_server,
    reaches,
    socket_in,
    until,
)

from pileus.agent.backend import HostSettings, Refused
from pileus.appliance.image import system
from pileus.sandbox.remote import RemoteObject
from pileus.sandbox.watchdog import Watchdog
from pileus.wire.operations import Reason, RouterMachine
from pileus.wire.router import LoadBalancer, RemoteAccessVpn, RouterConfig, VpnUser, fingerprint

IMAGE = Path(__file__).parents[3] / "build/systemvm.qcow2"
MACHINE = "vm"

SECURITY_ASSOCIATION, MAIN_MODE = 1, 2
_ATTRIBUTES = struct.pack("!12H", 0x8001, 7, 0x800E, 128, 0x8002, 2, 0x8003, 1, 0x8004, 14, 0x800B, 1)
_TRANSFORM = struct.pack("!BBHBBH", 0, 0, 8 + len(_ATTRIBUTES), 1, 1, 0) + _ATTRIBUTES
_PROPOSAL = struct.pack("!BBHBBBB", 0, 0, 8 + len(_TRANSFORM), 1, 1, 0, 1) + _TRANSFORM
_ASSOCIATION = struct.pack("!BBHII", 0, 0, 12 + len(_PROPOSAL), 1, 1) + _PROPOSAL
IKE_PROPOSAL = (
    b"cookie-1"
    + bytes(8)
    + struct.pack("!BBBBII", SECURITY_ASSOCIATION, 0x10, MAIN_MODE, 0, 0, 28 + len(_ASSOCIATION))
    + _ASSOCIATION
)
"""First message of an L2TP client: AES with 128 bits, SHA-1, a pre-shared key, group 14 (RFC 2409, appendix A)."""

pytestmark = [pytest.mark.kvm, pytest.mark.skipif(not can_run(), reason="hosts in namespaces cannot be made here")]


@pytest.fixture(scope="module", params=["namespace", MACHINE])
def home(request: pytest.FixtureRequest) -> str:
    if request.param == MACHINE and not system.is_current(IMAGE):
        pytest.skip("there is no system template of these sources: make systemvm")
    return str(request.param)


@pytest.fixture(scope="module")
def state(kvm_land: KvmLand, home: str) -> Path:
    made = kvm_land.directory / f"state-{home}"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def site(
    kvm_land: KvmLand, tmp_path_factory: pytest.TempPathFactory, watchdog: Watchdog, router: Resident
) -> Iterator[Site]:
    made = Site(kvm_land.host, tmp_path_factory.mktemp("site"), tag())
    for pattern in made.names:
        watchdog.network(pattern)
    try:
        made.make()
        yield made
    finally:
        made.unmake()


@pytest.fixture(scope="module")
def router(kvm_land: KvmLand, home: str, state: Path) -> Iterator[Resident]:
    """The router of this kind, running with two guests; nothing of it is left afterwards."""
    settings = HostSettings(kvm_land.host.uuid, str(state), str(kvm_land.host.address), kvm_land.credentials)
    machine = None
    if home == MACHINE:
        machine = RouterMachine(kvm_land.serve(IMAGE), hashlib.sha256(IMAGE.read_bytes()).hexdigest())
    made = Resident(lambda: RemoteObject(kvm_land.host, BACKEND, settings), machine)
    try:
        made.open()
        try:
            facts = made.start(wanted(1), epoch=3)
            assert (facts.generation, facts.fingerprint) == (1, fingerprint(wanted(1)))
            yield made
        finally:
            made.remove()
            made.unplug()
            made.close()
    finally:
        made.end()
    assert files_below(state) == []
    assert devices_of(kvm_land.host) == []


@pytest.fixture(scope="module")
def web(site: Site) -> Guest:
    guest = site.guest("02:00:00:00:00:05")
    guest.take_lease()
    return guest


def wanted(generation: int, **changes: object) -> RouterConfig:
    fields: dict[str, object] = {"leases": (WEB, DB), "guests": (WEB_DATA, DB_DATA), "port_forwards": (TO_WEB,)}
    return config(generation, **{**fields, **changes})


def test_a_running_router_is_seen_with_its_networks(router: Resident) -> None:
    (seen,) = router.seen()
    assert (seen.name, seen.uuid, seen.epoch, seen.running) == (NAME, UUID, 3, True)
    assert router.networks() == (GUEST_NETWORK, PUBLIC_NETWORK)


def test_a_guest_gets_its_lease(router: Resident, web: Guest) -> None:
    lease = web.take_lease()
    told = {name: lease[name] for name in ("ip", "router", "dns", "hostname")}
    assert told == {"ip": "10.1.1.5", "router": "10.1.1.1", "dns": "10.1.1.1", "hostname": "web"}


def test_names_of_guests_and_of_the_world_are_resolved(router: Resident, web: Guest, site: Site) -> None:
    with name_server(site):  # type: ignore[arg-type]
        assert "10.1.1.6" in web.resolve("db")
        assert INTERNET_IP in web.resolve("www.example.test")


def test_metadata_and_the_password_are_served_to_their_guest(router: Resident, web: Guest) -> None:
    assert web.get("/latest/meta-data/instance-id") == (200, b"i-2-5-VM")
    assert web.password("send_my_password") == "s3cret:Pw"


def test_the_way_out_is_translated(router: Resident, web: Guest, site: Site) -> None:
    server = listening(site.outside, 8080, INTERNET_IP)
    with connected(web.namespace, INTERNET_IP, 8080), server:
        _, peer = server.accept()
    assert peer[0] == PUBLIC_IP


def test_a_port_is_forwarded_and_no_other(router: Resident, web: Guest, site: Site) -> None:
    with listening(web.namespace, 80):
        assert reaches(site.outside, PUBLIC_IP, 8001)
        assert not reaches(site.outside, PUBLIC_IP, 8002)
        assert not reaches(site.outside, PUBLIC_IP, 22)


def test_connections_are_balanced(router: Resident, web: Guest, site: Site) -> None:
    shared = LoadBalancer("b1", PUBLIC_IP, 8090, 80, "roundrobin", ("10.1.1.5",))
    services = ("dhcp", "dns", "gateway", "source-nat", "user-data", "password", "load-balancing")
    router.configure(wanted(2, services=services, load_balancers=(shared,)))
    with listening(web.namespace, 80):
        until(lambda: reaches(site.outside, PUBLIC_IP, 8090), "the balancer has no member")
    router.configure(wanted(3))
    assert not reaches(site.outside, PUBLIC_IP, 8090)


def test_vpn_clients_are_answered_by_a_machine_and_refused_by_a_namespace(router: Resident, site: Site) -> None:
    services = ("dhcp", "dns", "gateway", "source-nat", "user-data", "password", "vpn")
    access = RemoteAccessVpn(PUBLIC_IP, "key", "10.1.2.1", "10.1.2.2", "10.1.2.8", (VpnUser("ann", "secret"),))
    with_vpn = wanted(4, services=services, vpn=access)
    if router.machine is None:
        with pytest.raises(Refused) as refused:
            router.configure(with_vpn)
        assert refused.value.reason is Reason.REJECTED
        return
    router.configure(with_vpn)
    with socket_in(site.outside, socket.SOCK_DGRAM, seconds=30) as client:
        client.connect((PUBLIC_IP, 500))
        client.send(IKE_PROPOSAL)
        answer = client.recv(2000)
    # Our cookie, one of its own, and the security association that it has chosen.
    assert answer[:8] == IKE_PROPOSAL[:8]
    assert answer[8:16] != bytes(8)
    assert (answer[16], answer[18]) == (SECURITY_ASSOCIATION, MAIN_MODE)


def test_the_public_side_has_its_rate(router: Resident, site: Site) -> None:
    assert f"rate {RATE_MBPS}Mbit" in site.host.run(["tc", "qdisc", "show"])


def test_a_newer_generation_replaces_the_config_and_an_older_one_is_refused(router: Resident, web: Guest) -> None:
    assert router.configure(wanted(5, port_forwards=())).generation == 5
    with pytest.raises(Refused) as refused:
        router.configure(wanted(4))
    assert refused.value.reason is Reason.STALE_EPOCH
    assert router.configure(wanted(6)).generation == 6


def test_a_config_that_cannot_be_is_refused_and_the_one_before_stays(router: Resident, web: Guest) -> None:
    with pytest.raises(Refused) as refused:
        router.configure(wanted(7, guest_ip="nowhere"))
    assert refused.value.reason is Reason.REJECTED
    assert web.take_lease()["ip"] == "10.1.1.5"


def test_a_second_start_in_the_same_epoch_only_configures(router: Resident, site: Site) -> None:
    began = pids(router, site)
    assert router.start(wanted(8)).generation == 8
    assert pids(router, site) == began


def test_an_older_epoch_is_refused_and_disturbs_nothing(router: Resident) -> None:
    with pytest.raises(Refused) as refused:
        router.wait(router._backend.start_router(spec(router.machine, 2), wanted(9)))
    assert refused.value.reason is Reason.STALE_EPOCH
    assert [(one.epoch, one.running) for one in router.seen()] == [(3, True)]


def test_a_router_outlives_its_agent_and_the_next_one_finds_it(router: Resident, web: Guest, site: Site) -> None:
    began = pids(router, site)
    router.close()
    assert web.take_lease()["ip"] == "10.1.1.5"
    router.open()
    assert [(one.epoch, one.running) for one in router.seen()] == [(3, True)]
    assert router.configure(wanted(10)).generation == 10
    assert pids(router, site) == began


def test_a_router_that_died_comes_back_with_its_config_when_the_agent_begins(
    router: Resident, web: Guest, site: Site
) -> None:
    router.close()
    site.host.run(["pkill", "-9", "-f", body(router)])
    router.open()
    until(lambda: [one.running for one in router.seen()] == [True], "the router does not come back", seconds=120)
    # Nobody has told it its config again.
    until(lambda: web.take_lease().get("ip") == "10.1.1.5", "the router does not serve its network", seconds=60)
    assert web.password("send_my_password") == "s3cret:Pw"


def test_a_newer_epoch_is_a_new_router_and_removal_leaves_nothing(router: Resident, state: Path, site: Site) -> None:
    began = pids(router, site)
    assert router.start(wanted(1), epoch=4).generation == 1
    assert [(one.epoch, one.running) for one in router.seen()] == [(4, True)]
    assert pids(router, site) != began
    router.remove()
    assert (router.seen(), router.networks(), files_below(state), devices_of(site.host)) == ([], (), [], [])
    with pytest.raises(Refused) as refused:
        router.configure(wanted(2))
    assert refused.value.reason is Reason.MISSING
    router.remove()


def test_a_start_that_fails_leaves_nothing(router: Resident, state: Path, site: Site) -> None:
    broken = wanted(1, guest_ip="nowhere") if router.machine is None else wanted(1)
    if router.machine is not None:
        # A template that is not what its checksum says never boots.
        router.machine = RouterMachine(router.machine.url, "00" * 32)
    with pytest.raises(Refused) as refused:
        router.start(broken, epoch=5)
    assert refused.value.reason is Reason.REJECTED
    assert (router.seen(), files_below(state), devices_of(site.host)) == ([], [], [])


def pids(router: Resident, site: Site) -> list[str]:
    """Processes of the router; others whenever it has been started again."""
    found = subprocess.run(site.host.argv(["pgrep", "-f", body(router)]), capture_output=True, text=True, check=False)
    return found.stdout.split()


def body(router: Resident) -> str:
    """A pattern of the router's process: the emulator's, or the appliance's own."""
    return f"guest={NAME}," if router.machine is not None else f"pileus.appliance.router.*{NAME}/control"
