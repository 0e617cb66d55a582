"""What must hold of all workflows together: each passes the soundness harness, and step names stay what they are."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from pileus.server.jobs.plan import Step, workflows
from pileus.testing.step_names import PRODUCT, complaints, line_of, product_steps, recorded
from pileus.testing.world import load_registered

HERE = Path(__file__).parent
RECORD = HERE / "step_names.txt"


def checked_workflows() -> Iterator[str]:
    """The names in `Soundness("name", …)` and `Soundness[Case]("name", …)` of every test in this directory."""
    for file in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            called = node.func.value if isinstance(node.func, ast.Subscript) else node.func
            if isinstance(called, ast.Name) and called.id == "Soundness":
                yield str(node.args[0].value)


def test_every_workflow_passes_the_soundness_harness() -> None:
    load_registered(strict=True)
    product = {name for name, plan in workflows.items() if plan.module.startswith(PRODUCT)}
    assert sorted(product - set(checked_workflows())) == []


def test_no_step_was_dropped_renamed_or_given_other_arguments() -> None:
    assert complaints(recorded(RECORD.read_text()), product_steps()) == []


def plain(ctx: object, vm: int) -> None: ...


def grown(ctx: object, vm: int, host: int) -> None: ...


def grown_softly(ctx: object, vm: int, host: int = 0) -> None: ...


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step("vm.other", plain), "step vm.place is gone"),
        (Step("vm.place", grown), "needs host"),
        (Step("vm.place", lambda ctx: None), "does not take vm"),
    ],
)
def test_what_stored_jobs_could_not_be_run_with_is_told(step: Step, said: str) -> None:
    assert any(said in text for text in complaints({"vm.place": ("vm",)}, {step.name: step}))


def test_an_argument_with_a_default_may_come() -> None:
    assert complaints({"vm.place": ("vm",)}, {"vm.place": Step("vm.place", grown_softly)}) == []


def test_a_step_is_recorded_with_its_arguments() -> None:
    assert recorded("# a comment\n\n" + line_of(Step("vm.place", grown))) == {"vm.place": ("vm", "host")}
