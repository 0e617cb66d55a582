"""Lives of routers on a host: epochs, crashes in between, restarts of the agent, and nothing left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from router_world import GUEST_NETWORK, PUBLIC_NETWORK, RunningRouter, World, config, run, until

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import router_control
from pileus.agent.backends.kvm.router_namespace import NamespaceRouters
from pileus.wire.operations import Reason
from pileus.wire.router import fingerprint

APPLIANCE = "pileus.appliance.router"

AGENT = """
import asyncio, pathlib, sys
import msgspec
from pileus.agent.backends.kvm import router_control
from pileus.agent.backends.kvm.router_namespace import NamespaceRouters
from pileus.wire.operations import RouterSpec
from pileus.wire.router import RouterConfig
state, spec, config, first, second = sys.argv[1:]
async def start():
    routers = NamespaceRouters(pathlib.Path(state))
    wanted = msgspec.json.decode(config, type=RouterConfig)
    await routers.start(msgspec.json.decode(spec, type=RouterSpec), wanted, (first, second))
asyncio.run(start())
print("started", flush=True)
sys.stdin.read()
"""


def test_a_second_start_in_the_same_epoch_only_configures(router: RunningRouter, world: World) -> None:
    router.start()
    pids = world.pids(APPLIANCE)
    facts = router.start(config(2, domain="other.test"))
    assert facts.generation == 2
    assert world.pids(APPLIANCE) == pids
    assert len(pids) == 1


def test_a_newer_epoch_replaces_the_router(router: RunningRouter, world: World) -> None:
    router.start(config(9))
    pids = world.pids(APPLIANCE)
    assert router.start(config(1), epoch=2).generation == 1
    assert world.pids(APPLIANCE) != pids
    assert [one.epoch for one in router.runner.run(router.launcher.seen())] == [2]


def test_an_older_epoch_is_refused_and_disturbs_nothing(router: RunningRouter, world: World) -> None:
    router.start(epoch=2)
    pids = world.pids(APPLIANCE)
    with pytest.raises(Refused) as refused:
        router.start(config(2), epoch=1)
    assert refused.value.reason is Reason.STALE_EPOCH
    assert world.pids(APPLIANCE) == pids


def test_a_restarted_agent_finds_its_routers(router: RunningRouter, world: World) -> None:
    router.start(epoch=3)
    router.forget()
    (seen,) = router.runner.run(router.launcher.seen())
    spec = world.spec()
    assert (seen.name, seen.uuid, seen.epoch, seen.running, seen.router) == (spec.name, spec.uuid, 3, True, True)
    networks = router.runner.run(router.launcher.networks_of(world.router_name))
    assert networks == (GUEST_NETWORK, PUBLIC_NETWORK)
    assert router.configure(config(2)).generation == 2


@pytest.mark.parametrize("end", ["by itself", "killed"])
def test_a_router_outlives_the_agent_that_started_it(router: RunningRouter, world: World, end: str) -> None:
    spec = msgspec.json.encode(world.spec()).decode()
    wanted = msgspec.json.encode(config()).decode()
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(router.state), spec, wanted, *world.bridges],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"started\n"
    if end == "killed":
        agent.send_signal(signal.SIGKILL)
    agent.communicate()
    assert [one.running for one in router.runner.run(router.launcher.seen())] == [True]
    assert router.configure(config()).fingerprint == fingerprint(config())


def test_remove_leaves_nothing_and_may_be_repeated(router: RunningRouter, world: World) -> None:
    router.start()
    assert world.traces() != []
    pids = world.pids(APPLIANCE) + world.pids("dnsmasq")
    assert len(pids) == 2
    router.remove()
    assert world.traces() == []
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists() and zombie(pid) is False] == []
    assert list(router.state.iterdir()) == []
    assert router.runner.run(router.launcher.seen()) == []
    assert router.runner.run(router.launcher.networks_of(world.router_name)) == ()
    router.remove()


def zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


def leave_only_the_record(router: RunningRouter) -> None:
    world = router.world
    run("ip", "netns", "del", world.router_namespace)
    until(lambda: "eth0" not in links(world), "the veth pair stays")


def leave_no_public_card(router: RunningRouter) -> None:
    run("ip", "-n", router.world.router_namespace, "link", "del", "eth2")


def leave_a_name_without_a_namespace(router: RunningRouter) -> None:
    run("ip", "netns", "del", router.world.router_namespace)
    Path("/run/netns", router.world.router_namespace).touch()


def leave_a_dead_appliance(router: RunningRouter) -> None:
    for pid in router.world.pids(APPLIANCE):
        os.kill(pid, signal.SIGKILL)


def leave_a_hanging_appliance(router: RunningRouter) -> None:
    for pid in router.world.pids(APPLIANCE):
        os.kill(pid, signal.SIGSTOP)


def leave_a_damaged_state(router: RunningRouter) -> None:
    leave_a_dead_appliance(router)
    until(lambda: not router.world.pids(APPLIANCE), "the appliance does not end")
    place = router.state / router.world.router_name
    (place / "control").unlink()
    (place / "appliance/applied.json").write_text("{")


def links(world: World) -> str:
    return run("ip", "netns", "exec", world.router_namespace, "ip", "link", check=False)


CRASHES = [
    leave_only_the_record,
    leave_no_public_card,
    leave_a_name_without_a_namespace,
    leave_a_dead_appliance,
    leave_a_hanging_appliance,
    leave_a_damaged_state,
]


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs need not be waited for as long as one on a busy host."""
    monkeypatch.setattr(router_control, "STATUS_SECONDS", 2.0)


@pytest.mark.parametrize("crash", CRASHES)
def test_half_a_router_is_seen_and_can_be_started_again(router: RunningRouter, world: World, crash: object) -> None:
    router.start()
    stop_and_break(router, crash)
    assert len(router.runner.run(router.launcher.seen())) == 1
    assert router.start(config(3)).generation == 3
    assert "eth0" in links(world)
    assert "eth2" in links(world)
    assert [one.running for one in router.runner.run(router.launcher.seen())] == [True]


@pytest.mark.parametrize("crash", CRASHES)
def test_half_a_router_can_be_removed(router: RunningRouter, world: World, crash: object) -> None:
    router.start()
    stop_and_break(router, crash)
    router.remove()
    assert world.traces() == []
    assert list(router.state.iterdir()) == []


def stop_and_break(router: RunningRouter, crash: object) -> None:
    if crash in (leave_only_the_record, leave_a_name_without_a_namespace):
        leave_a_dead_appliance(router)
        for pid in router.world.pids("dnsmasq"):
            os.kill(pid, signal.SIGKILL)
        until(lambda: not router.world.pids("dnsmasq"), "dnsmasq does not end")
    assert callable(crash)
    crash(router)
    router.forget()


def test_a_refused_start_leaves_nothing(router: RunningRouter, world: World) -> None:
    with pytest.raises(Refused) as refused:
        router.start(config(guest_ip="not an address"))
    assert refused.value.reason is Reason.REJECTED
    assert world.traces() == []
    assert router.runner.run(router.launcher.seen()) == []


def test_a_start_without_its_bridge_is_refused_and_leaves_nothing(router: RunningRouter, world: World) -> None:
    starting = router.launcher.start(world.spec(), config(), (world.bridges[0], "nosuchbridge"))
    with pytest.raises(Refused) as refused:
        router.runner.run(starting)
    assert refused.value.reason is Reason.FAILED
    assert "nosuchbridge" in refused.value.text
    assert world.traces() == []


def test_a_router_without_a_public_side_serves_its_network(router: RunningRouter, world: World) -> None:
    spec = msgspec.structs.replace(world.spec(), nics=world.spec().nics[:1])
    wanted = config(public=(), services=("dhcp", "dns", "user-data"))
    router.runner.run(router.launcher.start(spec, wanted, world.bridges[:1]))
    assert world.guest("02:00:00:00:00:05").take_lease()["ip"] == "10.1.1.5"
    with pytest.raises(Refused) as refused:
        router.configure(config(2))
    assert refused.value.reason is Reason.REJECTED


def test_two_appliances_do_not_share_a_state(router: RunningRouter, world: World) -> None:
    router.start()
    place = router.state / world.router_name
    options = ["--control", str(place / "second"), "--state", str(place / "appliance"), "--guest", "eth0"]
    enter = ["ip", "netns", "exec", world.router_namespace, sys.executable, "-m", APPLIANCE]
    second = subprocess.run([*enter, *options], capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == 1
    assert "another router" in second.stderr
    assert router.configure(config(2)).generation == 2


def test_configuring_what_is_not_here_is_refused(router: RunningRouter) -> None:
    with pytest.raises(Refused) as refused:
        router.configure(config())
    assert refused.value.reason is Reason.MISSING


@pytest.mark.parametrize("name", ["", "r-1-VM/../x", "../r-1-VM", "i-2-3-VM", "r--VM"])
def test_a_name_that_is_no_routers_is_refused(tmp_path: Path, router: RunningRouter, world: World, name: str) -> None:
    launcher = NamespaceRouters(tmp_path / "none")
    for asked in (
        launcher.remove(name),
        launcher.configure(name, config()),
        launcher.start(msgspec.structs.replace(world.spec(), name=name), config(), world.bridges),
    ):
        with pytest.raises(Refused) as refused:
            router.runner.run(asked)
        assert refused.value.reason is Reason.REJECTED
    assert not (tmp_path / "none").exists()
