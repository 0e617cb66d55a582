"""Plans: what a workflow yields is what is stored, and what is stored means the same when it is read."""

from collections.abc import Iterator

import pytest

from pileus.server.jobs import plan, wakeup
from pileus.server.jobs.plan import Block, Plan, StepCall, decode, step, try_elsewhere, workflow


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "steps", {})
    monkeypatch.setattr(plan, "workflows", {})


def test_blocks_are_numbered_and_steps_outside_belong_to_none() -> None:
    one = step("one")(lambda ctx, n: None)
    two = step("two")(lambda ctx, n: None)

    @workflow("w")
    def parts(n: int) -> Iterator[StepCall | Block]:
        yield one(n=n)
        yield try_elsewhere(one(n=n + 1), two(n=n + 2))
        yield two(n=n + 3)
        yield try_elsewhere(one(n=n + 4))

    calls = parts(10).calls
    assert [(call.step, call.arguments["n"], call.block) for call in calls] == [
        ("one", 10, 0),
        ("one", 11, 1),
        ("two", 12, 1),
        ("two", 13, 0),
        ("one", 14, 2),
    ]
    assert (parts.name, parts.module) == ("w", __name__)


def test_a_stored_plan_reads_back_equal() -> None:
    made = Plan(
        "w", (StepCall("one", {"vm": 7, "names": ["a", "b"], "size": None, "forced": True}), StepCall("two", {}, 3))
    )
    assert decode("w", made.encode()) == made


def test_a_name_is_registered_once() -> None:
    step("one")(lambda ctx: None)
    with pytest.raises(ValueError, match="one"):
        step("one")(lambda ctx: None)
    workflow("w")(lambda: iter(()))
    with pytest.raises(ValueError, match="w"):
        workflow("w")(lambda: iter(()))


def test_an_undo_stands_beside_its_step() -> None:
    made = step("one")(lambda ctx: None)

    @made.undo
    def back(ctx: object) -> None: ...

    assert (plan.steps["one"].do is made.do, plan.steps["one"].back is back) == (True, True)


def test_announcements_reach_listeners_of_their_kind_until_they_stop_listening() -> None:
    heard: list[str] = []

    def job() -> None:
        heard.append("job")

    def reconciler() -> None:
        heard.append("reconciler")

    wakeup.listen(job)
    wakeup.listen(reconciler, wakeup.RECONCILERS)
    wakeup.announce()
    wakeup.announce_reconcilers()
    wakeup.ignore(job)
    wakeup.announce()
    wakeup.ignore(reconciler, wakeup.RECONCILERS)
    wakeup.announce_reconcilers()
    assert heard == ["job", "reconciler"]
