"""What a router remembers over a restart, and what must not be on its disk."""

from pathlib import Path

import msgspec
import pytest

from pileus.appliance.router.leases import plan
from pileus.appliance.router.release import Held, held
from pileus.appliance.router.store import Applied, Store, described
from pileus.wire.router import GuestData, Lease, RouterConfig, fingerprint

CONFIG = RouterConfig(
    network="n",
    generation=3,
    guest_ip="10.1.1.1",
    guest_prefix=24,
    domain="x",
    dns=("192.0.2.53",),
    leases=(Lease("02:00:00:00:00:05", "10.1.1.5", "web"), Lease("02:00:00:00:00:06", "10.1.1.6", "db", False)),
    guests=(GuestData("10.1.1.5", {}, password="first-secret", password_id="p1"),),
)
APPLIED = Applied(CONFIG, fingerprint(CONFIG))


def test_a_config_is_described_by_its_fingerprint() -> None:
    assert described(CONFIG) == APPLIED


def test_a_new_store_remembers_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    assert store.applied() is None
    assert store.saved() == set()


@pytest.mark.parametrize("applied", [APPLIED, described(CONFIG)])
def test_an_applied_config_is_remembered_as_it_was(applied: Applied, tmp_path: Path) -> None:
    Store(tmp_path).keep_applied(applied, frozenset())
    assert Store(tmp_path).applied() == APPLIED


def test_a_password_that_was_set_leaves_the_disk_and_the_fingerprint_stays(tmp_path: Path) -> None:
    Store(tmp_path).keep_applied(APPLIED, {"p1"})
    assert "first-secret" not in (tmp_path / "applied.json").read_text()
    again = Store(tmp_path).applied()
    assert again is not None
    assert again.facts() == APPLIED.facts()
    assert again.config.guests[0].password


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "state")
    store.keep_applied(APPLIED, frozenset())
    store.keep_saved({"p1"})
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "state").iterdir()} == {0o600}
    assert store.saved() == {"p1"}


def test_a_damaged_file_is_an_error_and_not_a_config(tmp_path: Path) -> None:
    (tmp_path / "applied.json").write_text("{")
    with pytest.raises(msgspec.DecodeError):
        Store(tmp_path).applied()


def test_leases_name_the_gateway_only_where_it_is_the_default() -> None:
    assert plan(CONFIG).files["dhcp-hosts"] == (
        "02:00:00:00:00:05,10.1.1.5,web,infinite\n02:00:00:00:00:06,set:nogateway,10.1.1.6,db,infinite\n"
    )


def test_a_guest_that_comes_changes_files_and_no_argument() -> None:
    fewer = RouterConfig(
        network="n", generation=1, guest_ip="10.1.1.1", guest_prefix=24, domain="x", leases=CONFIG.leases[:1]
    )
    assert plan(fewer).arguments == plan(CONFIG).arguments
    assert plan(fewer).files != plan(CONFIG).files


def test_without_dhcp_and_dns_there_is_nothing_to_run() -> None:
    none = RouterConfig(network="n", generation=1, guest_ip="10.1.1.1", guest_prefix=24, domain="x", services=())
    assert not plan(none).wanted


def test_leases_are_read_from_dnsmasqs_file() -> None:
    text = "0 02:00:00:00:00:05 10.1.1.5 web 01:02:00:00:00:00:05\n0 02:00:00:00:00:06 10.1.1.6 * *\nduid 00\n"
    assert held(text) == [
        Held("02:00:00:00:00:05", "10.1.1.5", "01:02:00:00:00:00:05"),
        Held("02:00:00:00:00:06", "10.1.1.6", "*"),
    ]
