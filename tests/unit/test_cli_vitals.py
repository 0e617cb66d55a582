"""What the command line makes of a server's health and metrics."""

from pytest_httpserver import HTTPServer

from pileus.cli.vitals import Finding, health, samples, vitals

PAGE = """# HELP pileus_jobs Jobs
# TYPE pileus_jobs gauge
pileus_jobs{state="queued"} 1.0
pileus_jobs{state="stuck"} %(stuck)s
pileus_reconciler_runs_total{outcome="done",reconciler="expunge"} 99.0
pileus_reconciler_runs_total{outcome="failed",reconciler="expunge"} 1.0
pileus_reconciler_runs_total{outcome="failed",reconciler="mail"} %(mail)s
pileus_reconciler_runs_total{outcome="done",reconciler="mail"} 5.0
pileus_capacity_total{type="memory",zone="a \\"z\\""} 100.0
pileus_capacity_used{type="memory",zone="a \\"z\\""} %(used)s
pileus_capacity_total{type="vlan",zone="empty"} 0.0
pileus_capacity_used{type="vlan",zone="empty"} 0.0
process_resident_memory_bytes 7.5e+07
"""
WELL = {"stuck": "0.0", "mail": "0.0", "used": "90.0"}
ILL = {"stuck": "2.0", "mail": "5.0", "used": "91.0"}


def serving(server: HTTPServer, page: str | None, *, status: int = 200, text: str = "ok\n") -> str:
    server.expect_request("/healthz").respond_with_data(text, status=status)
    if page is not None:
        server.expect_request("/metrics").respond_with_data(page)
    return server.url_for("/client/api")


def test_of_a_server_that_is_well_there_is_nothing_to_mend(httpserver: HTTPServer) -> None:
    found = list(vitals(serving(httpserver, PAGE % WELL)))
    assert [finding for finding in found if finding.mend] == []
    assert Finding("the server is in good health") in found
    assert Finding("jobs: 1 queued") in found
    assert Finding("the server holds 75 MB of memory") in found


def test_what_the_numbers_tell_is_said_with_the_fix(httpserver: HTTPServer) -> None:
    found = [finding for finding in vitals(serving(httpserver, PAGE % ILL)) if finding.mend]
    stuck, mail, memory = found
    assert stuck.what.startswith("2 jobs are stuck")
    assert mail.what.startswith("reconciler mail failed in 5 of 10 runs")
    assert memory.what.startswith("zone a ")
    assert "91 % of memory" in memory.what


def test_each_line_of_an_ill_server_gets_its_fix(httpserver: HTTPServer) -> None:
    text = "database: OperationalError\njobs: no worker has moved for 90 s\nnews: of another version\n"
    endpoint = serving(httpserver, None, status=503, text=text)
    found = [finding for finding in vitals(endpoint) if finding.mend]
    assert [finding.what for finding in found] == [f"the server is ill: {line}" for line in text.splitlines()]
    assert "database server" in found[0].mend
    assert "job interrupted" in found[1].mend
    assert "log" in found[2].mend
    assert health(endpoint) == found


def test_a_server_that_keeps_its_metrics_to_others_is_well_all_the_same(httpserver: HTTPServer) -> None:
    found = list(vitals(serving(httpserver, None)))
    assert [finding.mend for finding in found] == ["", ""]
    assert "to others only" in found[1].what


def test_what_is_no_server_of_ours_is_told(httpserver: HTTPServer) -> None:
    (finding,) = health(serving(httpserver, None, status=404, text="x"))
    assert "check the endpoint" in finding.mend


def test_a_server_that_cannot_be_reached_is_not_spoken_of() -> None:
    assert list(vitals("http://127.0.0.1:1/client/api")) == []
    assert health("http://127.0.0.1:1/client/api") == []


def test_labels_are_read_in_the_order_of_their_names() -> None:
    assert samples('a{z="1",b="2"} 3\n# b 1\n\nc 4') == {"a": {("2", "1"): 3.0}, "c": {(): 4.0}}
