"""Stretches: steps that share a transaction until one naps or fails."""

from collections.abc import Iterator

import pytest

from pileus.server.domain.errors import ResourceUnavailable
from pileus.server.jobs.context import Nap, StepContext
from pileus.server.jobs.engine import MOST_STEPS
from pileus.server.jobs.plan import StepCall, step, workflow
from pileus.server.jobs.submit import JobRef, Owner, submit
from pileus.testing import World
from pileus.testing.trace import Crash, Trace, traced

OWNER = Owner(2, 1, 2)

did: list[str] = []
committed: list[str] = []


@step("stretchtoy.note")
def note(ctx: StepContext, name: str) -> None:
    did.append(name)
    ctx.set_result(**{name: 1})
    ctx.tx.after_commit(lambda: committed.append(name))


@note.undo
def unnote(ctx: StepContext, name: str) -> None:
    did.append(f"not {name}")


@step("stretchtoy.refuse")
def refuse(ctx: StepContext) -> None:
    raise ResourceUnavailable("no")


@step("stretchtoy.nap")
def nap(ctx: StepContext) -> None:
    if "napped" not in did:
        did.append("napped")
        raise Nap(1.0)


@workflow("stretchtoy.notes")
def notes(names: list[str], *, naps: bool = False, fails: bool = False) -> Iterator[StepCall]:
    for name in names:
        yield note(name=name)
    if naps:
        yield nap()
        yield note(name="last")
    if fails:
        yield refuse()


@pytest.fixture(autouse=True)
def forget() -> None:
    did.clear()
    committed.clear()


def asked(world: World, names: str, **how: bool) -> JobRef:
    with world.db.write() as tx:
        return submit(tx, notes(list(names), **how), OWNER, command="notes")


def commits(world: World) -> int:
    trace = Trace()
    with traced(world, trace):
        world.settle()
    return trace.commits


def test_steps_that_do_not_wait_share_a_commit(world: World) -> None:
    ref = asked(world, "abc")
    count = commits(world)
    assert world.result(ref) == {"a": 1, "b": 1, "c": 1}
    assert count == (1 if world.db.is_sqlite else 2), "the claim has a commit of its own where there are many writers"


def test_each_step_alone_has_its_own_commit(world: World) -> None:
    world.fused = False
    asked(world, "abc")
    assert commits(world) == 4


def test_a_nap_ends_a_stretch_and_keeps_what_came_before(world: World) -> None:
    ref = asked(world, "ab", naps=True)
    world.new_engine().run_one()
    assert world.job(ref)["position"] == 2
    assert committed == ["a", "b"]
    world.settle()
    assert did == ["a", "b", "napped", "last"]


def test_a_failure_undoes_exactly_the_steps_that_started(world: World) -> None:
    ref = asked(world, "ab", fails=True)
    assert world.failure(ref)[1] == "no"
    assert did == ["a", "b", "a", "b", "not b", "not a"], "first the stretch, then step by step, then back"
    assert committed == ["a", "b"], "nothing of the stretch came to be"


def test_a_failure_leaves_the_other_jobs_of_the_transaction_alone(world: World) -> None:
    good, bad, other = asked(world, "a"), asked(world, "b", fails=True), asked(world, "c")
    left = world.engine.take()
    for held in left or ():
        world.engine.run(held)
    world.settle()
    assert [world.job(ref)["phase"] for ref in (good, bad, other)] == ["succeeded", "failed", "succeeded"]
    assert sorted(committed) == ["a", "b", "c"]


def test_a_crash_before_the_commit_repeats_the_stretch(world: World) -> None:
    ref = asked(world, "ab", naps=True)
    with traced(world, Trace(crash_at=1)), pytest.raises(Crash):
        world.settle()
    world.new_engine()
    world.settle()
    assert world.job(ref)["phase"] == "succeeded"


def test_a_long_plan_commits_on_the_way(world: World) -> None:
    ref = asked(world, "a" * (2 * MOST_STEPS))
    assert commits(world) > (1 if world.db.is_sqlite else 2)
    assert world.job(ref)["phase"] == "succeeded"
    assert len(did) == 2 * MOST_STEPS
