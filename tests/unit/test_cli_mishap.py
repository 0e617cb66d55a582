"""`pileus fleet` and `pileus mishap` write what the fleet's own reader understands."""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pileus.agent.settings import from_file
from pileus.cli.main import app
from pileus.wire.orders import Mishap, Order, read_orders


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "orders").mkdir()
    return tmp_path


def told(state: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["mishap", *arguments, "--state-dir", str(state)])
    return result.exit_code, result.output


def test_a_mishap_is_ordered_by_a_file_the_fleet_can_read(state: Path) -> None:
    assert (
        told(state, "die", "--hosts", 'sim"*', "--share", "0.5", "--seconds", "5", "--set", "refuse.StartVm=0.1")[0]
        == 0
    )
    (file,) = (state / "orders").iterdir()
    assert (file.suffix, file.stat().st_mode & 0o777) == (".toml", 0o600)
    read = read_orders(file.read_text())
    assert read.settings == {"refuse.StartVm": "0.1"}
    assert read.mishaps == (Order(Mishap.DIE, 'sim"*', 0.5, 5.0, 0.0),)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(("explode",), "what"), ((), "--set"), (("--set", "lose"), "NAME=VALUE"), (("--set", "lose=2"), "lose")],
)
def test_what_cannot_happen_is_refused_before_the_fleet_sees_it(
    state: Path, arguments: Sequence[str], named: str
) -> None:
    status, output = told(state, *arguments)
    assert (status, named in output) == (1, True)
    assert list((state / "orders").iterdir()) == []


def test_without_a_fleet_there_is_nobody_to_tell(tmp_path: Path) -> None:
    status, output = told(tmp_path / "nowhere", "die")
    assert (status, "no fleet" in output) == (1, True)


def test_options_of_a_fleet_reach_its_agent_with_dots_and_colons(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execv", lambda *_: None)
    (state / "token").write_text("a-one-time-secret-of-the-fleet")
    (state / "f.toml").write_text("")
    given = ["--option", "latency.StartVm=uniform:1:2", "--option", "lose=0.1", "--faults", str(state / "f.toml")]
    result = CliRunner().invoke(app, ["fleet", "--state-dir", str(state), *given])
    assert result.exit_code == 0, result.output
    fleet = from_file(state / "agent.toml").fleet
    assert fleet is not None
    assert fleet.options["latency.StartVm"] == "uniform:1:2"
    assert (fleet.options["lose"], fleet.options["faults"]) == (0.1, str(state / "f.toml"))
    assert fleet.options["orders"] == str(state / "orders")
    assert "fleet" in tomllib.loads((state / "agent.toml").read_text())
