"""Load balancing, shown with connections: who gets them, and what a change does to those that run."""

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import msgspec
import pytest
from router_site import OFFICE_IP, PUBLIC_IP, SERVICES, Site, closed, site
from router_world import PATIENCE_SECONDS, connected, listening, until

from pileus.agent.backend import Refused
from pileus.sandbox.watchdog import Watchdog
from pileus.wire.operations import Reason
from pileus.wire.router import FirewallRule, LoadBalancer

WEB_IP, DB_IP = "10.1.1.5", "10.1.1.6"
BOTH = LoadBalancer("l1", PUBLIC_IP, 80, 8080, "roundrobin", (WEB_IP, DB_IP))
ONE = msgspec.structs.replace(BOTH, members=(WEB_IP,))
NONE = msgspec.structs.replace(BOTH, members=())
OPEN = FirewallRule("open", PUBLIC_IP, "tcp", 80, 90)


class Echo:
    """A guest's server: says who it is, then says everything back."""

    def __init__(self, namespace: str, name: bytes, port: int = 8080) -> None:
        self._listening = listening(namespace, port)
        self._listening.settimeout(None)
        self._name = name
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection = self._listening.accept()[0]
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(self._name)
            while data := connection.recv(1000):
                connection.sendall(data)
        connection.close()

    def close(self) -> None:
        """As if the guest's server had crashed."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, watchdog: Watchdog) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("site"), watchdog) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def web(here: Site) -> Iterator[None]:
    server = Echo(here.web.namespace, b"web")
    yield
    server.close()


@pytest.fixture
def db(here: Site) -> Iterator[Echo]:
    server = Echo(here.db.namespace, b"dbs")
    yield server
    with suppress(OSError):
        server.close()


def declare(here: Site, *balancers: LoadBalancer, firewall: tuple[FirewallRule, ...] = (OPEN,)) -> None:
    here.declare(services=(*SERVICES, "load-balancing"), load_balancers=balancers, firewall=firewall)


def begun(stack: ExitStack, here: Site, source: str = "", port: int = 80) -> tuple[socket.socket, str]:
    """A connection through the balancer, and who answers."""
    client = stack.enter_context(connected(here.world.outside, PUBLIC_IP, port, source=source))
    return client, client.recv(3, socket.MSG_WAITALL).decode()


def answers(here: Site, times: int, source: str = "") -> Counter[str]:
    with ExitStack() as stack:
        return Counter(begun(stack, here, source)[1] for _ in range(times))


def alive(client: socket.socket) -> bool:
    try:
        client.sendall(b"alive")
        return client.recv(5, socket.MSG_WAITALL) == b"alive"
    except OSError:
        return False


def processes(here: Site) -> list[int]:
    return here.world.pids("haproxy")


def test_connections_are_shared_out(here: Site, db: Echo) -> None:
    declare(here, BOTH)
    assert answers(here, 10) == {"web": 5, "dbs": 5}
    declare(here, msgspec.structs.replace(BOTH, algorithm="leastconn"))
    assert answers(here, 10) == {"web": 5, "dbs": 5}


def test_a_client_stays_with_its_member_where_the_source_decides(here: Site, db: Echo) -> None:
    declare(here, msgspec.structs.replace(BOTH, algorithm="source"))
    assert len(answers(here, 8)) == 1
    assert len(answers(here, 8, OFFICE_IP)) == 1


def test_the_firewall_says_who_may_use_a_balancer(here: Site) -> None:
    declare(here, ONE, firewall=())
    assert closed(here.world.outside, PUBLIC_IP, 80)
    declare(here, ONE, firewall=(msgspec.structs.replace(OPEN, cidrs=(f"{OFFICE_IP}/32",)),))
    assert closed(here.world.outside, PUBLIC_IP, 80)
    assert answers(here, 2, OFFICE_IP) == {"web": 2}
    # Neither by another address of the router nor by the guests' way in is there a door.
    declare(here, ONE, firewall=(msgspec.structs.replace(OPEN, id="other", ip="203.0.113.11"), OPEN))
    assert closed(here.world.outside, "203.0.113.11", 80)
    with connected(here.db.namespace, PUBLIC_IP, 80) as own:
        assert own.recv(3) == b"web"


def test_without_members_connections_are_refused_and_nothing_runs(here: Site) -> None:
    declare(here, ONE)
    assert len(processes(here)) == 2
    for balancers in ((NONE,), ()):
        declare(here, *balancers)
        assert processes(here) == []
    declare(here, NONE)
    with pytest.raises(ConnectionRefusedError):
        connected(here.world.outside, PUBLIC_IP, 80)


def test_members_come_and_go_beside_running_connections(here: Site, db: Echo) -> None:
    declare(here, ONE)
    before = processes(here)
    with ExitStack() as stack:
        first, name = begun(stack, here)
        assert name == "web"
        declare(here, BOTH)
        assert answers(here, 10).keys() == {"web", "dbs"}
        of_db = next(client for client, name in (begun(stack, here) for _ in range(10)) if name == "dbs")
        assert alive(first)
        assert alive(of_db)
        declare(here, ONE)
        assert alive(first)
        assert not alive(of_db)
        assert answers(here, 6) == {"web": 6}
    assert processes(here) == before


def test_another_balancer_leaves_running_connections_alone(here: Site) -> None:
    other = LoadBalancer("l2", PUBLIC_IP, 81, 8080, "leastconn", (WEB_IP,))
    declare(here, ONE)
    with ExitStack() as stack:
        client, _ = begun(stack, here)
        declare(here, ONE, other)
        assert alive(client)
        second, _ = begun(stack, here, port=81)
        declare(here, ONE)
        assert alive(client)
        assert not alive(second)
        assert closed(here.world.outside, PUBLIC_IP, 81)
    # The worker from before ends when its last connection does.
    until(lambda: len(processes(here)) == 2, "old workers stay")


def test_a_member_that_fails_gets_nothing_until_it_is_back(here: Site, db: Echo) -> None:
    declare(here, BOTH)
    with ExitStack() as stack:
        of_db = next(client for client, name in (begun(stack, here) for _ in range(4)) if name == "dbs")
        db.close()
        # From the first moment on: who meets the dead one is sent on.
        assert answers(here, 10) == {"web": 10}
        assert not alive(of_db)
        again = Echo(here.db.namespace, b"dbs")
        until(lambda: "dbs" in answers(here, 4), "the member does not come back", PATIENCE_SECONDS)
        again.close()


def test_a_door_that_is_taken_is_refused_and_the_others_stay_open(here: Site) -> None:
    other = LoadBalancer("l2", PUBLIC_IP, 81, 8080, "leastconn", (WEB_IP,))
    declare(here, ONE)
    with ExitStack() as stack:
        client, _ = begun(stack, here)
        taken = stack.enter_context(listening(here.world.router_namespace, 81, PUBLIC_IP))
        with pytest.raises(Refused) as refused:
            declare(here, ONE, other)
        assert refused.value.reason is Reason.FAILED
        assert "cannot bind" in refused.value.text
        assert alive(client)
        assert answers(here, 2) == {"web": 2}
        taken.close()
        declare(here, ONE, other)
        assert begun(stack, here, port=81)[1] == "web"


def test_a_killed_haproxy_is_started_again(here: Site) -> None:
    declare(here, ONE)
    for pid in processes(here):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: here_answers(here), "haproxy was not started again")
    assert len(processes(here)) == 2


def here_answers(here: Site) -> bool:
    try:
        return bool(answers(here, 1))
    except OSError:
        return False


def test_connections_outlive_the_program_and_so_does_the_next_change(here: Site, db: Echo) -> None:
    declare(here, ONE)
    before = set(processes(here))
    with ExitStack() as stack:
        client, _ = begun(stack, here)
        (pid,) = here.world.pids("pileus.appliance.router")
        os.kill(pid, signal.SIGKILL)
        until(lambda: not here.world.pids("pileus.appliance.router"), "the appliance does not end")
        assert alive(client)
        here.router.runner.run(here.router.launcher.revive())
        assert alive(client)
        declare(here, BOTH)
        assert answers(here, 10).keys() == {"web", "dbs"}
        assert alive(client)
    assert min(before) in processes(here)


def test_it_needs_little_memory(here: Site) -> None:
    declare(here, ONE)
    resident = 0
    for pid in processes(here):
        with open(f"/proc/{pid}/smaps_rollup") as file:
            resident += sum(int(line.split()[1]) for line in file if line.startswith("Pss:"))
    assert resident < 40 * 1024
