"""What the programs of a VPN are told, and what a change does to those who are connected."""

import asyncio
from pathlib import Path

import msgspec
import pytest

from pileus.appliance.router.errors import StepFailed
from pileus.appliance.router.rules import ruleset
from pileus.appliance.router.tunnels import (
    CHARON_CONFIG,
    PPP_OPTIONS,
    SECRETS,
    SWANCTL_CONFIG,
    XL2TPD_CONFIG,
    File,
    plan,
)
from pileus.appliance.router.vpn import CHARON, XL2TPD, Vpn
from pileus.wire.router import PublicAddress, RemoteAccessVpn, RouterConfig, VpnUser

ANN, BOB = VpnUser("ann", "pw#1"), VpnUser("bob", "pw2")
ACCESS = RemoteAccessVpn("203.0.113.10", 'k"y}\n', "10.1.2.1", "10.1.2.2", "10.1.2.8", (BOB, ANN))
CONFIG = RouterConfig(
    "n",
    1,
    "10.1.1.1",
    24,
    "x",
    services=("dns", "gateway", "vpn"),
    public=(PublicAddress("203.0.113.10", 24, "203.0.113.1", source_nat=True),),
    vpn=ACCESS,
)


def with_access(**changes: object) -> RouterConfig:
    return msgspec.structs.replace(CONFIG, vpn=msgspec.structs.replace(ACCESS, **changes))


def files(config: RouterConfig) -> dict[Path, File]:
    made = plan(config)
    assert made is not None
    return made.files()


def lines(path: Path, config: RouterConfig = CONFIG) -> list[str]:
    return [line.strip() for line in files(config)[path].text.splitlines()]


class Recording:
    """A machine that writes down what is asked of it; `failing` names what fails."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.files: dict[Path, File] = {}
        self.failing = ""

    def _do(self, what: str) -> None:
        self.did.append(what)
        if self.failing and self.failing in what:
            raise StepFailed(what)

    async def prepare(self) -> None:
        self._do("prepare")

    def write(self, path: Path, file: File) -> None:
        self.files[path] = file

    async def start(self, program: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self._do(f"start {program}")

    async def stop(self, program: str) -> None:
        self._do(f"stop {program}")

    async def run(self, program: str, *arguments: str) -> None:
        self._do(f"run {program}")

    def end_sessions(self, users: frozenset[str]) -> None:
        self._do(f"end {sorted(users)}")


STOPPED = [f"stop {XL2TPD}", f"stop {CHARON}"]
STARTED = [f"start {CHARON}", "run swanctl", f"start {XL2TPD}"]


def applied(machine: Recording, *configs: RouterConfig | None) -> list[str]:
    """What the last config has done to the machine."""

    async def go() -> None:
        vpn = Vpn(machine)
        for config in configs:
            machine.did.clear()
            await vpn.apply(config)

    asyncio.run(go())
    return machine.did


def test_ipsec_is_in_transport_mode_with_the_key_of_the_network() -> None:
    said = lines(SWANCTL_CONFIG)
    assert "version = 1" in said
    assert said.count("auth = psk") == 2
    assert "mode = transport" in said
    assert "local_addrs = 203.0.113.10" in said
    assert "local_ts = dynamic[udp/1701]" in said
    # As base64, so that a key may be anything.
    assert "secret = 0sayJ5fQo=" in said


def test_tunnels_end_at_the_router_and_have_addresses_of_their_own() -> None:
    assert {"listen-addr = 203.0.113.10", "ip range = 10.1.2.2-10.1.2.8", "local ip = 10.1.2.1"} <= set(
        lines(XL2TPD_CONFIG)
    )
    assert {"auth", "require-mschap-v2", "ms-dns 10.1.1.1", "mtu 1400"} <= set(lines(PPP_OPTIONS))


def test_without_a_name_service_of_its_own_clients_are_told_the_zones() -> None:
    config = msgspec.structs.replace(CONFIG, services=("vpn",), dns=("192.0.2.53",))
    assert "ms-dns 192.0.2.53" in lines(PPP_OPTIONS, config)
    assert "ms-dns 10.1.1.1" not in lines(PPP_OPTIONS, config)


def test_secrets_are_for_root_alone() -> None:
    assert lines(SECRETS) == ['"ann" pileus "pw#1" *', '"bob" pileus "pw2" *']
    made = files(CONFIG)
    assert {made[path].mode for path in (SECRETS, SWANCTL_CONFIG, CHARON_CONFIG)} == {0o600}


def test_the_first_vpn_starts_everything_and_the_last_ends_it() -> None:
    machine = Recording()
    assert applied(machine, CONFIG) == [*STOPPED, "prepare", *STARTED]
    assert machine.files.keys() == files(CONFIG).keys()
    assert applied(Recording(), CONFIG, None) == STOPPED
    assert applied(Recording(), CONFIG, msgspec.structs.replace(CONFIG, vpn=None)) == STOPPED


def test_the_same_again_does_nothing() -> None:
    assert applied(Recording(), CONFIG, msgspec.structs.replace(CONFIG, generation=2)) == []
    assert applied(Recording(), None, None) == []


@pytest.mark.parametrize(
    ("users", "ended"),
    [((ANN,), ["bob"]), ((ANN, VpnUser("bob", "new")), ["bob"]), ((ANN, BOB, VpnUser("eve", "x")), [])],
)
def test_users_come_and_go_without_disturbing_others(users: tuple[VpnUser, ...], ended: list[str]) -> None:
    machine = Recording()
    assert applied(machine, CONFIG, with_access(users=users)) == [f"end {ended}"]
    assert machine.files[SECRETS] == files(with_access(users=users))[SECRETS]


def test_another_key_or_address_ends_every_tunnel() -> None:
    assert applied(Recording(), CONFIG, with_access(preshared_key="other")) == [*STOPPED, *STARTED]
    assert applied(Recording(), CONFIG, with_access(last_ip="10.1.2.20")) == [f"stop {XL2TPD}", f"start {XL2TPD}"]


def test_after_a_failure_everything_is_begun_anew() -> None:
    machine = Recording()

    async def go() -> None:
        vpn = Vpn(machine)
        await vpn.apply(CONFIG)
        machine.failing = XL2TPD
        with pytest.raises(StepFailed):
            await vpn.apply(with_access(last_ip="10.1.2.20"))
        machine.failing = ""
        machine.did.clear()
        await vpn.apply(CONFIG)

    asyncio.run(go())
    assert machine.did == [*STOPPED, "prepare", *STARTED]


def test_only_keys_and_what_comes_out_of_ipsec_is_let_in() -> None:
    chains = ruleset(CONFIG, guest="eth0", public="eth2").chains.splitlines()
    assert [line for line in chains if line.startswith('iifname "eth2" ip daddr 203.0.113.10 ')] == [
        'iifname "eth2" ip daddr 203.0.113.10 udp dport { 500, 4500 } accept',
        'iifname "eth2" ip daddr 203.0.113.10 meta l4proto esp accept',
        'iifname "eth2" ip daddr 203.0.113.10 udp dport 1701 meta secpath exists accept',
    ]
    without = ruleset(msgspec.structs.replace(CONFIG, vpn=None), guest="eth0", public="eth2").chains
    assert "ppp" not in without
    assert "secpath" not in without
