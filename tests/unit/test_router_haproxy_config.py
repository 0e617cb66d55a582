"""What haproxy is told of balancers."""

import subprocess
from pathlib import Path

import msgspec
import pytest

from pileus.appliance.router.balancing import NO_STATES, Plan, plan, rendered
from pileus.wire.router import LoadBalancer, RouterConfig

WEB = LoadBalancer("l1", "203.0.113.10", 80, 8080, "roundrobin", ("10.1.1.5", "10.1.1.6"))
SECURE = LoadBalancer("l2", "203.0.113.10", 443, 443, "source", ("10.1.1.5",))
EMPTY = LoadBalancer("l3", "203.0.113.10", 25, 25, "leastconn")


def planned(*balancers: LoadBalancer) -> Plan:
    return plan(RouterConfig("n", 1, "10.1.1.1", 24, "x", load_balancers=balancers))


def test_a_balancer_listens_at_its_door_and_knows_its_members() -> None:
    lines = [line.strip() for line in rendered(planned(WEB), connections=100).splitlines()]
    assert lines[lines.index("frontend f-l1") :] == [
        "frontend f-l1",
        "bind 203.0.113.10:80",
        "default_backend b-l1",
        "backend b-l1",
        "balance roundrobin",
        "server 10.1.1.5 10.1.1.5:8080",
        "server 10.1.1.6 10.1.1.6:8080",
    ]
    assert "maxconn 100" in lines


@pytest.mark.parametrize(("wanted", "told"), [(0, 100), (20, 20), (101, 100)])
def test_connections_are_bounded_by_the_config_and_by_what_the_router_can(wanted: int, told: int) -> None:
    bounded = plan(RouterConfig("n", 1, "10.1.1.1", 24, "x", load_balancers=(WEB,), max_connections=wanted))
    assert f"    maxconn {told}\n" in rendered(bounded, connections=100)
    assert (bounded.shape() == planned(WEB).shape()) is (wanted == 0)


def test_nobody_listens_for_a_balancer_without_members() -> None:
    assert planned(EMPTY) == plan(None) == Plan(())


def test_only_members_may_change_without_a_reload() -> None:
    fewer = msgspec.structs.replace(WEB, members=("10.1.1.6",))
    assert planned(WEB, SECURE).shape() == planned(fewer, SECURE).shape()
    assert planned(WEB).servers().keys() - planned(fewer).servers().keys() == {"b-l1/10.1.1.5"}
    for change in ({"port": 81}, {"guest_port": 81}, {"algorithm": "leastconn"}, {"ip": "203.0.113.11"}):
        assert planned(WEB).shape() != planned(msgspec.structs.replace(WEB, **change)).shape()


@pytest.mark.parametrize("algorithm", ["roundrobin", "leastconn", "source"])
def test_haproxy_takes_what_is_written(algorithm: str, tmp_path: Path) -> None:
    path = tmp_path / "haproxy.cfg"
    path.write_text(rendered(planned(msgspec.structs.replace(WEB, algorithm=algorithm)), connections=100))
    (tmp_path / "states").write_text(NO_STATES)
    check = ["/usr/sbin/haproxy", "-c", "-f", path]
    done = subprocess.run(check, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "[WARNING]" not in done.stderr
