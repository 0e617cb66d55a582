"""Two servers on one database, agents with simulated hosts over TLS: what the users of a farm are promised."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from pileus.cli.client import ApiError, Client
from pileus.testing import servers
from pileus.testing.farm import Farm, ServerProcess, Shape, eventually

SECONDS = 60.0
UNAUTHORIZED = 401


@pytest.fixture(scope="module", params=["postgresql", "mariadb"])
def farm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """A laid-out farm of two whose hosts are spread over both."""
    url = getattr(servers, request.param)().create("pileus_e2e")
    shape = Shape(agents=2, hosts_of_agent=2, settings="drain_seconds = 2")
    with Farm(tmp_path_factory.mktemp("farm"), url, shape) as made:
        made.start()
        made.lay_out()
        made.spread()
        yield made


def deploy(client: Client, farm: Farm, name: str) -> None:
    started = client.call("deployVirtualMachine", **farm.order(name))
    assert client.wait(started["jobid"], seconds=SECONDS)["virtualmachine"]["state"] == "Running"


def test_deploys_through_both_servers_reach_hosts_of_both(farm: Farm) -> None:
    assert set(farm.holders().values()) == {"s1", "s2"}
    for number in range(4):
        deploy(farm.client(farm.servers[number % 2]), farm, f"both{number}")
    homes = {uuid for uuid, guest in farm.scene().hosts.world.guests() if not guest.router}
    assert len(homes) > 1
    assert farm.wrong() == []


def test_a_login_is_good_on_every_server_and_ends_on_all_at_once(farm: Farm) -> None:
    one, two = (server.endpoint for server in farm.servers)
    with httpx.Client(trust_env=False, timeout=SECONDS) as browser:
        asked = {"command": "login", "username": "admin", "password": farm.password, "response": "json"}
        opened = browser.post(one, data=asked).json()["loginresponse"]
        asked = {"command": "listZones", "sessionkey": opened["sessionkey"], "response": "json"}
        told = browser.post(two, data=asked)
        assert [zone["name"] for zone in told.json()["listzonesresponse"]["zone"]] == ["z1"]
        cookies = dict(browser.cookies)
        assert browser.post(one, data={**asked, "command": "logout"}).status_code == 200
        for endpoint in (two, one):
            again = httpx.post(endpoint, data=asked, cookies=cookies, trust_env=False, timeout=SECONDS)
            assert again.status_code == UNAUTHORIZED


def test_a_setting_is_in_force_on_the_other_server_with_the_next_call(farm: Farm) -> None:
    one, two = (farm.client(server) for server in farm.servers)
    for size in (1, 2, 500):
        one.call("updateConfiguration", name="default.page.size", value=size)
        assert len(two.call("listHosts")["host"]) == min(size, len(farm.holders()))


@contextmanager
def calls_without_end(farm: Farm) -> Iterator[list[str]]:
    """Clients that list and deploy through a list of both servers; what failed is in the list."""
    failed: list[str] = []
    done = threading.Event()
    made = [0]

    def lists() -> None:
        client = farm.client(*farm.servers)
        while not done.is_set():
            attempt(lambda: client.call("listVirtualMachines"))

    def deploys() -> None:
        client = farm.client(*farm.servers)
        while not done.is_set():
            made[0] += 1
            attempt(lambda: deploy(client, farm, f"rolling{made[0]}"))

    def attempt(call: object) -> None:
        try:
            call()  # type: ignore[operator]
        except (ApiError, AssertionError) as error:
            failed.append(repr(error))

    threads = [threading.Thread(target=work) for work in (lists, deploys)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        done.set()
        for thread in threads:
            thread.join(2 * SECONDS)
    assert made[0] > 2


def test_a_rolling_restart_fails_no_call(farm: Farm) -> None:
    with calls_without_end(farm) as failed:
        for server in farm.servers:
            seen: list[bool] = []
            watcher = threading.Thread(target=leaves_before_it_ends, args=(server, seen))
            watcher.start()
            assert server.terminate() == 0
            watcher.join(SECONDS)
            assert seen == [True]
            server.start()
            server.wait_ready()
    assert failed == []
    eventually("all hosts are held", lambda: None not in farm.holders().values())
    assert farm.hosts_up() == len(farm.holders())
    assert farm.wrong() == []


def leaves_before_it_ends(server: ServerProcess, seen: list[bool]) -> None:
    """Notes whether the server said 503 at /healthz before it took no more connections."""
    until = time.monotonic() + SECONDS
    pause = threading.Event()
    while time.monotonic() < until:
        if (status := server.health()) != 200:
            seen.append(status == 503)
            return
        pause.wait(0.02)


def test_when_the_server_that_holds_hosts_is_killed_another_takes_over(farm: Farm) -> None:
    victim, other = farm.servers
    client = farm.client(other)
    started = client.call("deployVirtualMachine", **farm.order("across"))
    victim.kill()
    try:
        eventually("the other holds all hosts", lambda: set(farm.holders().values()) == {other.name}, seconds=SECONDS)
        assert client.wait(started["jobid"], seconds=SECONDS)["virtualmachine"]["state"] == "Running"
        deploy(client, farm, "after")
        assert farm.hosts_up() == len(farm.holders())
    finally:
        victim.start()
        victim.wait_ready()
    deploy(farm.client(victim), farm, "again")
    assert farm.wrong() == []
