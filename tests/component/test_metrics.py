"""`/metrics`: who may read it, what it tells, what it costs, and that the documentation names it all."""

import asyncio
import re
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from api_client import Api, Person
from prometheus_client.parser import text_string_to_metric_families
from server_process import running
from sqlalchemy import insert, update
from vm_setup import deployed, steady_cloud

from pileus.server import main
from pileus.server.db import conflict
from pileus.server.db.conflict import retried
from pileus.server.db.queries import standing
from pileus.server.db.tables.job import job
from pileus.server.db.transaction import Database
from pileus.server.exposition import GAUGES, Exposition
from pileus.server.jobs import reconciler as reconciler_module
from pileus.server.jobs.engine import Engine
from pileus.server.jobs.plan import Plan
from pileus.server.jobs.reconciler import Reconciler, run_once
from pileus.server.jobs.submit import Owner, submit
from pileus.server.meter import Histogram, instruments
from pileus.server.metrics import Metrics
from pileus.testing import World
from pileus.testing.client import counted_statements

LIVE = {
    "pileus_api_calls_in_progress": lambda: 3,
    "pileus_agent_connections": lambda: 2,
    "pileus_agent_hosts_connected": lambda: 5,
}
DOCUMENT = Path(__file__).parents[2] / "docs" / "operating.md"


@dataclass
class Page:
    """A parsed page."""

    text: str

    def value(self, name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return sample.value
        return 0.0

    def names(self) -> set[str]:
        return {line.split()[2] for line in self.text.splitlines() if line.startswith("# TYPE ")}


def page(db: Database) -> Page:
    return Page(Exposition(db, LIVE).page().decode())


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b"passed on"})


def asked(
    db: Database,
    *,
    client: str,
    peers: tuple[str, ...] = ("127.0.0.0/8", "::1/128"),
    path: str = "/metrics",
    method: str = "GET",
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    app = Metrics(_nothing, db, peers=[ip_network(each) for each in peers], live=LIVE)

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://cloud.test") as http:
            return await http.request(method, path, headers=headers)

    return asyncio.run(go())


@pytest.mark.parametrize(
    ("client", "peers", "status"),
    [
        ("127.0.0.1", ("127.0.0.0/8",), 200),
        ("::1", ("::1/128",), 200),
        ("::ffff:127.0.0.1", ("127.0.0.0/8",), 200),
        ("10.0.0.7", ("127.0.0.0/8", "10.0.0.0/24"), 200),
        ("10.0.1.7", ("127.0.0.0/8", "10.0.0.0/24"), 404),
        ("192.0.2.1", ("127.0.0.0/8", "::1/128"), 404),
        ("2001:db8::1", ("127.0.0.0/8", "::1/128"), 404),
        ("127.0.0.1", (), 404),
        ("", ("0.0.0.0/0", "::/0"), 404),
    ],
)
def test_only_peers_of_the_configured_networks_read_metrics(
    db: Database, client: str, peers: tuple[str, ...], status: int
) -> None:
    answer = asked(db, client=client, peers=peers)
    assert answer.status_code == status
    assert ("pileus_" in answer.text) is (status == 200)


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Forwarded-Host"])
def test_what_a_proxy_passes_on_comes_from_nobody_we_know(db: Database, header: str) -> None:
    # A proxy on this machine is a loopback peer; and nobody becomes one by saying so.
    for client in ("127.0.0.1", "192.0.2.1"):
        assert asked(db, client=client, headers={header: "127.0.0.1"}).status_code == 404


def test_everything_else_is_passed_on_and_metrics_are_only_read(db: Database) -> None:
    assert asked(db, client="192.0.2.1", path="/client/api").text == "passed on"
    assert asked(db, client="127.0.0.1", method="POST").status_code == 405
    assert asked(db, client="192.0.2.1", method="POST").status_code == 404


def test_a_server_shows_metrics_at_its_own_door(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        at = f"http://127.0.0.1:{server.api_port}/metrics"
        answer = httpx.get(at, trust_env=False)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        told = Page(answer.text)
        assert told.value("pileus_database_up") == 1
        assert told.value("process_resident_memory_bytes") > 10e6
        assert httpx.get(at, headers={"X-Forwarded-For": "::1"}, trust_env=False).status_code == 404


def test_calls_are_counted_by_command_and_code(api: Api, admin: Person) -> None:
    before = page(api.database)
    api.ok(admin, "listZones")
    api.error(admin, "listZones", id="nonsense")
    api.send("GET", {"command": "no-such-thing"})
    api.send("GET", {"command": "listZones"})
    after = page(api.database)

    def more(name: str, **labels: str) -> float:
        return after.value(name, **labels) - before.value(name, **labels)

    assert more("pileus_api_calls_total", command="listZones", code="200") == 1
    assert more("pileus_api_calls_total", command="listZones", code="431") == 1
    assert more("pileus_api_calls_total", command="listZones", code="401") == 1
    # What is no command is one series, whatever strangers send.
    assert more("pileus_api_calls_total", command="none", code="401") == 1
    assert more("pileus_api_call_seconds_count", command="listZones") == 3
    assert more("pileus_api_call_seconds_bucket", command="listZones", le="+Inf") == 3
    assert more("pileus_database_transaction_seconds_count", kind="read") > 0
    assert "no-such-thing" not in after.text


def test_the_standing_of_jobs_hosts_and_capacity_is_told(db: Database) -> None:
    def put(tx: Any, phase: str, number: int, **more: Any) -> None:
        for _ in range(number):
            row = {"workflow": "w", "command": "c", "account_id": 1, "domain_id": 1, "user_id": 1, "phase": phase}
            tx.execute(insert(job).values(**row, plan="{}", avoid="{}", created_at=1, **more))

    with db.write() as tx:
        put(tx, "queued", 1)
        put(tx, "forward", 2, lease_owner="s1", lease_until_at=1)
        put(tx, "unwind", 3)
        put(tx, "stuck", 4)
        put(tx, "failed", 5)
        tx.execute(update(job).where(job.c.phase == "failed").values(open=None))
    told = page(db)
    states = {state: told.value("pileus_jobs", state=state) for state in ("queued", "running", "waiting", "stuck")}
    assert states == {"queued": 1, "running": 2, "waiting": 3, "stuck": 4}
    assert told.value("pileus_agent_connections") == 2
    assert told.value("pileus_agent_hosts_connected") == 5
    assert told.value("pileus_api_calls_in_progress") == 3


def test_a_deploy_is_seen_in_steps_hosts_and_capacity(world: World) -> None:
    cloud = steady_cloud(world)
    before = page(world.db)
    deployed(world, world.account("alice"), cloud)
    told = page(world.db)
    begun = 'pileus_job_step_seconds_count{direction="do",step="vm.place"}'
    assert begun in told.text
    assert told.text.count('direction="undo"') == before.text.count('direction="undo"')
    assert told.value("pileus_hosts", kind="Routing", state="Up") >= 1
    with world.db.read() as tx:
        (zone_name,) = standing.zone_names(tx).values()
    for kind in ("cpu", "memory", "storage_allocated"):
        used = told.value("pileus_capacity_used", zone=zone_name, type=kind)
        assert 0 < used <= told.value("pileus_capacity_total", zone=zone_name, type=kind)


def test_ends_of_jobs_are_counted_by_workflow_and_state(db: Database) -> None:
    engine = Engine(db, owner="s1", hooks=main._hooks())
    before = main.ENDED.values()
    with db.write() as tx:
        submit(tx, Plan("test.nothing", ()), owner=Owner(2, 1, 2), command="test")
    assert engine.run_one()
    more = {key: value - before.get(key, 0) for key, value in main.ENDED.values().items()}
    assert more[("test.nothing", "succeeded")] == 1


def test_a_scrape_costs_a_fixed_number_of_queries_and_the_next_one_none(db: Database) -> None:
    exposition = Exposition(db, LIVE)
    with counted_statements(db) as first:
        exposition.page()
    with counted_statements(db) as second:
        exposition.page()
    assert 0 < len(first) <= 12
    assert second == []


def test_without_a_database_the_rest_is_told(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
    told = page(database)
    database.dispose()
    assert "pileus_database_up 0.0" in told.text
    assert "pileus_api_calls_total" in told.text
    assert "pileus_jobs{" not in told.text


def test_reconcilers_are_counted_by_outcome(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_db: Database) -> None:
        raise RuntimeError("broken")

    known = {"well": Reconciler("well", 60, lambda _db: None), "ill": Reconciler("ill", 60, broken)}
    monkeypatch.setattr(reconciler_module, "reconcilers", known)
    run_once(db, "well", owner="s1")
    with pytest.raises(RuntimeError):
        run_once(db, "ill", owner="s1")
    told = page(db)
    assert told.value("pileus_reconciler_runs_total", reconciler="well", outcome="done") == 1
    assert told.value("pileus_reconciler_runs_total", reconciler="ill", outcome="failed") == 1
    assert told.value("pileus_reconciler_run_seconds_count", reconciler="well") == 1


def test_units_of_work_called_again_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflict, "is_conflict", lambda _error: True)
    before = conflict.CONFLICTS.value()
    tries = []

    def work() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise conflict.DBAPIError("x", {}, Exception())
        return "done"

    assert retried(work) == "done"
    assert conflict.CONFLICTS.value() - before == 2


def test_every_metric_is_in_the_documentation_and_nothing_else_is(db: Database) -> None:
    ours = {each.name for each in GAUGES} | instruments.keys()
    rows = re.findall(r"^\| `(pileus_\w+)` \| (\w+) \| ([^|]*)\|", DOCUMENT.read_text(), re.MULTILINE)
    documented = {name: (kind, labels.strip()) for name, kind, labels in rows}
    assert documented.keys() == ours
    for name, (kind, labels) in documented.items():
        gauge = next((each for each in GAUGES if each.name == name), None)
        made = gauge or instruments[name]
        wanted = "gauge" if gauge else "histogram" if isinstance(made, Histogram) else "counter"
        assert kind == wanted, name
        assert labels == ", ".join(made.labels), name


def test_no_label_is_an_id_or_something_that_people_chose_but_the_zone() -> None:
    every = {label for each in [*GAUGES, *instruments.values()] for label in each.labels}
    assert every == {
        *("command", "code", "workflow", "state", "step", "direction", "reconciler", "outcome", "kind", "pool"),
        *("zone", "type", "version", "level"),
    }
