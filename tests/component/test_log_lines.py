"""Which call and which job a line of the log belongs to."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from api_client import Api, Person
from sqlalchemy import select
from vm_setup import steady_cloud, submitted

from pileus.server.db.tables.job import job
from pileus.server.hosts import operations
from pileus.server.hosts.callbacks import Callbacks
from pileus.server.hosts.delivery import Delivery, Line
from pileus.testing import World
from pileus.wire.messages import Answer
from pileus.wire.operations import Done


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What is logged, as dictionaries, with what is bound to the thread."""
    before, seen = structlog.get_config(), []

    def keep(_logger: object, _method: str, line: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(line))
        raise structlog.DropEvent

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, keep], cache_logger_on_first_use=False)
    yield seen
    structlog.configure(**before)


def of(lines: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


def test_a_call_and_all_its_lines_bear_the_id_that_the_answer_tells(
    api: Api, admin: Person, lines: list[dict[str, Any]]
) -> None:
    answer = api.call(admin, "listZones", stranger="x")
    told = answer.headers["x-request-id"]
    assert len(told) == 16
    assert [(line["event"], line["request"]) for line in lines] == [("unknown parameters", told), ("call", told)]
    assert api.call(admin, "listZones").headers["x-request-id"] != told


def test_an_id_that_a_client_sends_is_not_believed(api: Api) -> None:
    answer = api.send("GET", {"command": "listZones"}, headers={"X-Request-Id": "forged"})
    assert answer.headers["x-request-id"] != "forged"
    assert answer.headers.get_list("x-request-id") == [answer.headers["x-request-id"]]


def test_what_cannot_be_read_as_a_call_is_logged_too(api: Api, lines: list[dict[str, Any]]) -> None:
    answer = api.send("GET", url="/client/api?command=a&command=b")
    (line,) = of(lines, "call refused")
    assert (line["request"], line["status"]) == (answer.headers["x-request-id"], 431)
    for path in ("/", "/nothing", "/openapi.json"):
        assert api.send("GET", path=path).headers["x-request-id"]


def test_a_job_is_traced_from_its_submission_through_all_its_lines(world: World, lines: list[dict[str, Any]]) -> None:
    cloud = steady_cloud(world)
    lines.clear()
    ref, _ = submitted(world, world.account("alice"), cloud)
    with world.db.read() as tx:
        uuid = tx.scalar(select(job.c.uuid).where(job.c.id == world.job(ref)["id"]))
    assert uuid in [line["submitted"] for line in of(lines, "job submitted")]
    lines.clear()
    world.settle()
    uuids = {row["uuid"] for row in _jobs(world)}
    # The router's job was begun by ours.
    begun = {line["submitted"]: line["job"] for line in of(lines, "job submitted")}
    assert uuid in begun.values()
    assert begun.keys() <= uuids


def _jobs(world: World) -> list[Any]:
    with world.db.read() as tx:
        return tx.all(select(job))


def test_a_line_about_an_answer_bears_the_job_that_asked(world: World, lines: list[dict[str, Any]]) -> None:
    cloud = steady_cloud(world)
    submitted(world, world.account("alice"), cloud)
    while world.turn() and not world.pending_operations():
        pass
    with world.db.read() as tx:
        hosts = operations.hosts_with_waiting(tx)
        waiting = operations.waiting(tx, hosts)[0]
    lines.clear()
    line = Line(send=_never, end=_never, hosts={"h": waiting.host_id})
    delivery = Delivery(world.db, Callbacks())
    delivery._write([(line, Answer(waiting.operation_id, "h", result=Done()))])
    delivery._write([(line, Answer(waiting.operation_id, "stranger", result=Done()))])
    uuid = operations.job_of(waiting.operation_id)
    assert uuid in {row["uuid"] for row in _jobs(world)}
    assert [(each["event"], each["job"]) for each in lines] == [("operation.answered", uuid), ("answer.foreign", uuid)]
    assert {each["operation_id"] for each in lines} == {waiting.operation_id}


async def _never(_message: object) -> None:
    raise AssertionError("nothing is sent here")


def test_operations_that_no_job_asked_for_have_none() -> None:
    for operation_id in ("", "op-1", "sync.7", "0" * 36, "not-a-uuid.1.0.d"):
        assert operations.job_of(operation_id) is None
