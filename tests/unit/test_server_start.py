"""What a server loads before it is ready: each of these costs processor time at every start, and memory for good."""

import dataclasses
import json
import subprocess
import sys

import pytest

from pileus.server.api.command import ListParams, Params, param

NEEDLESS = {
    *("alembic", "mako", "rich", "pygments", "attr", "typer", "httpx", "prometheus_client", "uvloop"),
    *("psycopg", "pymysql", "ldap", "websockets.legacy", "uvicorn.protocols.websockets", "pileus.testing"),
}

LOAD = """
import gc, json, sys
import pileus.server.__main__
from pileus.server.registered import register_all
register_all()
print(json.dumps({"modules": sorted(sys.modules), "gc": gc.isenabled(), "frozen": gc.get_freeze_count()}))
"""


def test_a_server_loads_nothing_that_it_does_not_need_to_be_ready() -> None:
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=120, check=True)
    loaded = json.loads(done.stdout)
    assert NEEDLESS.isdisjoint(loaded["modules"]), NEEDLESS & set(loaded["modules"])
    assert {"structlog", "sqlalchemy", "pileus.server.workflows.vm_deploy"} <= set(loaded["modules"])
    assert loaded["gc"] is True
    assert loaded["frozen"] > 10_000


class Painted(Params):
    colour: str = param("its colour")
    size: int = param("its size", default=3)


class PaintedList(ListParams):
    colour: str | None = param("its colour", default=None)


def test_parameters_have_their_defaults_and_never_change() -> None:
    made = Painted(colour="red")
    assert (made.colour, made.size) == ("red", 3)
    assert Painted(colour="red", size=4).size == 4
    assert PaintedList(page=2).page == 2
    assert PaintedList().keyword is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.size = 5  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.colour
    assert [each.name for each in dataclasses.fields(PaintedList)] == ["keyword", "page", "page_size", "colour"]  # type: ignore[arg-type]


def test_parameters_that_are_missing_or_unknown_are_a_fault_of_the_caller() -> None:
    with pytest.raises(TypeError, match="colour"):
        Painted()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="shape"):
        Painted(colour="red", shape="round")  # type: ignore[call-arg]


def test_parameters_are_never_shown_by_accident() -> None:
    assert "c4n4ry" not in repr(Painted(colour="c4n4ry"))
