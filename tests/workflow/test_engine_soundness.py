"""The harness on toy workflows: it passes sound ones and finds what is wrong in unsound ones."""

from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import insert
from toy import ball, balls, done, nested, open_toys, put, send, used

from pileus.server.jobs.context import StepContext
from pileus.server.jobs.plan import Block, StepCall, step, workflow
from pileus.server.jobs.submit import JobRef
from pileus.testing import World
from pileus.testing.soundness import SCENARIOS, Scenario, Soundness, Unsound


def in_boxes(world: World, _case: None) -> None:
    held = Counter(box_id for box_id in balls(world).values() if box_id is not None)
    assert used(world) == [held[1], held[2]]


PUT = Soundness("toy.put", prepare=open_toys, submit=lambda world, _: send(world, put("red")), holds=in_boxes)
NESTED = Soundness("toy.nested", prepare=open_toys, submit=lambda world, _: send(world, nested("red")), holds=in_boxes)


@pytest.mark.parametrize("sound", [PUT, NESTED], ids=lambda sound: sound.workflow)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_sound_workflow_passes(sound: Soundness[None], scenario: Scenario) -> None:
    sound.check(scenario)


@step("toy.careless")
def careless(ctx: StepContext, ball_name: str) -> None:
    ctx.tx.execute(insert(ball).values(name=ball_name))


@step("toy.wrong_undo")
def wrong_undo(ctx: StepContext) -> None:
    pass


@wrong_undo.undo
def never_works(ctx: StepContext) -> None:
    raise OSError("this undo never works")


@workflow("toy.careless")
def careless_put(ball_name: str) -> Iterator[StepCall | Block]:
    yield careless(ball_name=ball_name)
    yield done(ball_name=ball_name)


@workflow("toy.wrong_undo")
def stuck() -> Iterator[StepCall | Block]:
    yield wrong_undo()


def submit_careless(world: World, _case: None) -> JobRef:
    return send(world, careless_put("red"))


def test_a_step_that_cannot_run_twice_is_found() -> None:
    sound = Soundness("toy.careless", prepare=open_toys, submit=submit_careless)
    sound.check(Scenario.STRAIGHT)
    with pytest.raises(Unsound, match="each step twice"):
        sound.check(Scenario.STEPS_TWICE)


def test_an_undo_that_never_works_is_found() -> None:
    sound = Soundness("toy.wrong_undo", prepare=open_toys, submit=lambda world, _: send(world, stuck()))
    with pytest.raises(Unsound, match="stuck"):
        sound.check(Scenario.FAILURES)


def test_what_must_hold_after_a_success_is_checked() -> None:
    def never(world: World, _case: None) -> None:
        raise AssertionError("it does not hold")

    sound = Soundness("toy.put", prepare=open_toys, submit=lambda world, _: send(world, put("red")), holds=never)
    with pytest.raises(Unsound, match="it does not hold"):
        sound.check(Scenario.STRAIGHT)
