"""The engine forward and back: order of undo, rounds of a block, errors, deadlines, stuck jobs, queues, children."""

import pytest
from sqlalchemy import insert, select, update
from toy import (
    OWNER,
    balls,
    bell,
    box,
    lines,
    moods,
    nested,
    nothing,
    open_toys,
    put,
    send,
    used,
    wait,
)

from pileus.server.db.tables.job import job
from pileus.server.domain.errors import ResourceInUse
from pileus.server.jobs.engine import Engine, retry
from pileus.server.jobs.plan import steps
from pileus.server.jobs.submit import submit, wake
from pileus.testing import World


@pytest.fixture(autouse=True)
def _toys(world: World) -> None:
    open_toys(world)


def ring(world: World, name: str) -> None:
    with world.db.write() as tx:
        tx.execute(insert(bell).values(name=name, rung=1))
        wake(tx, f"bell:{name}")


def break_boxes(world: World, *numbers: int) -> None:
    with world.db.write() as tx:
        tx.execute(update(box).where(box.c.id.in_(numbers)).values(broken=1))


def test_a_job_runs_its_steps_in_order_and_keeps_its_result(world: World) -> None:
    ref = send(world, put("red"))
    assert world.result(ref) == {"box": 1}
    assert lines(world) == ["make red", "choose 1 round 0", "done red"]
    row = world.job(ref)
    assert (row["open"], row["lease_owner"], row["running_key"], row["completed_at"]) == (
        None,
        None,
        None,
        world.clock.now(),
    )


def test_a_plan_without_steps_succeeds(world: World) -> None:
    assert world.result(send(world, nothing())) == {}


def test_a_block_tries_elsewhere_after_undoing_itself_and_nothing_else(world: World) -> None:
    break_boxes(world, 1)
    assert world.result(send(world, put("red"))) == {"box": 2}
    assert lines(world) == ["make red", "choose 1 round 0", "give back 1 round 0", "choose 2 round 1", "done red"]
    assert used(world) == [0, 1]


def test_when_no_place_is_left_everything_is_undone_and_the_error_has_each_reason(world: World) -> None:
    break_boxes(world, 1, 2)
    code, text = world.failure(send(world, put("red")))
    assert code == 533
    assert text == "no box: box:1: its lid is broken; box:2: its lid is broken"
    assert lines(world)[-1] == "unmake red"
    assert (balls(world), used(world)) == ({}, [0, 0])


def test_a_parked_job_holds_no_lease_and_goes_on_when_its_topic_is_woken(world: World) -> None:
    ref = send(world, wait("noon"))
    assert world.engine.run_one()
    assert not world.engine.run_one()
    row = world.job(ref)
    assert (row["waiting_for"], row["lease_owner"], row["lease_until_at"]) == ("bell:noon", None, None)
    assert row["wake_at"] == row["deadline_at"]
    ring(world, "noon")
    assert world.engine.run_one()
    assert world.job(ref)["phase"] == "succeeded"


def test_waking_another_topic_wakes_nobody(world: World) -> None:
    send(world, wait("noon"))
    assert world.engine.run_one()
    ring(world, "midnight")
    assert not world.engine.run_one()


def test_a_bell_that_rang_before_the_step_looked_is_not_waited_for(world: World) -> None:
    ring(world, "noon")
    ref = send(world, wait("noon"))
    assert world.engine.run_one()
    assert world.job(ref)["phase"] == "succeeded"


def test_a_nap_ends_by_itself_at_its_time_and_not_before(world: World) -> None:
    ref = send(world, nested("red"))
    assert world.engine.run_one()
    world.clock.advance(59)
    assert not world.engine.run_one()
    world.clock.advance(1)
    assert world.engine.run_one()
    assert world.job(ref)["waiting_for"] == f"job:{ref.id + 1}"


def test_a_passed_deadline_unwinds_and_says_which_step_waited_for_what(world: World) -> None:
    ref = send(world, wait("noon"), seconds=90)
    code, text = world.failure(ref)
    assert code == 534
    assert "toy.hear" in text
    assert "bell:noon" in text
    assert balls(world) == {}
    assert world.clock.now() == world.job(ref)["deadline_at"]


def test_an_undo_that_fails_is_repeated_until_it_works(world: World) -> None:
    moods.undo_breaks = 3
    break_boxes(world, 1, 2)
    began_at = world.clock.now()
    code, _ = world.failure(send(world, put("red")))
    assert code == 533
    assert balls(world) == {}
    assert world.clock.now() - began_at == (1 + 2 + 4) * 1000


def test_an_undo_that_keeps_failing_makes_the_job_stuck_and_a_person_may_retry_it(world: World) -> None:
    told: list[tuple[str, str]] = []
    world.hooks.on_stuck.append(lambda tx, row: told.append((row["uuid"], row["phase"])))
    moods.undo_breaks = 9
    break_boxes(world, 1, 2)
    ref = send(world, put("red"), key="ball:red")
    world.settle()
    row = world.job(ref)
    assert (row["phase"], row["open"], row["error_code"]) == ("stuck", 1, 533)
    assert told == [(ref.uuid, "stuck")]
    assert row["running_key"] == "ball:red", "what is stuck still holds its resource"
    with world.db.write() as tx:
        assert retry(tx, ref.id)
        assert not retry(tx, ref.id)
    world.failure(ref)
    assert balls(world) == {}


def test_hooks_tell_of_each_end_once_in_its_transaction(world: World) -> None:
    told: list[tuple[str, str, bool]] = []
    world.hooks.on_end.append(lambda tx, row: told.append(("end", row["phase"], tx.writable)))
    world.hooks.on_failed.append(lambda tx, row: told.append(("failed", row["phase"], tx.writable)))
    world.result(send(world, put("red")))
    break_boxes(world, 1, 2)
    world.failure(send(world, put("blue")))
    assert told == [("end", "succeeded", True), ("failed", "failed", True), ("end", "failed", True)]


def test_jobs_on_one_resource_run_one_after_the_other(world: World) -> None:
    first, second, third = (send(world, wait(name), key="ball:red") for name in ("one", "two", "three"))
    other = send(world, put("blue"), key="ball:blue")
    while world.turn():
        pass
    assert [world.job(ref)["phase"] for ref in (first, second, third)] == ["forward", "queued", "queued"]
    assert world.job(other)["phase"] == "succeeded"
    for name in ("three", "two", "one"):
        ring(world, name)
    world.settle()
    heard = [line for line in lines(world) if line.startswith("heard")]
    assert heard == ["heard one", "heard two", "heard three"]


def test_the_next_job_runs_after_one_that_failed(world: World) -> None:
    break_boxes(world, 1, 2)
    first, second = send(world, put("red"), key="k"), send(world, wait("noon"), key="k")
    ring(world, "noon")
    world.failure(first)
    assert world.result(second) == {}


def test_a_job_that_may_not_wait_is_refused_while_another_runs(world: World) -> None:
    send(world, wait("noon"), key="ball:red")
    with pytest.raises(ResourceInUse):
        send(world, put("red"), key="ball:red", wait_for_turn=False)
    ring(world, "noon")
    world.settle()
    assert world.result(send(world, put("red"), key="ball:red", wait_for_turn=False)) == {"box": 1}


def test_two_running_jobs_on_one_resource_cannot_be_stored(world: World) -> None:
    send(world, wait("noon"), key="ball:red")
    second = send(world, put("red"), key="ball:red")
    with pytest.raises(Exception, match="running_key"), world.db.write() as tx:
        tx.execute(update(job).where(job.c.id == second.id).values(running_key="ball:red"))


def test_a_queued_job_whose_turn_comes_too_late_fails_and_says_so(world: World) -> None:
    first = send(world, wait("noon"), key="ball:red", seconds=300)
    second = send(world, wait("late"), key="ball:red", seconds=100)
    world.failure(first)
    code, text = world.failure(second)
    assert code == 534
    assert "key:ball:red" in text
    assert balls(world) == {}


def test_a_submission_that_rolls_back_leaves_no_job(world: World) -> None:
    with pytest.raises(RuntimeError), world.db.write() as tx:
        submit(tx, put("red"), OWNER, command="toy")
        raise RuntimeError("the service failed")
    world.settle()
    assert balls(world) == {}


def test_a_parent_gets_the_result_of_its_child(world: World) -> None:
    ref = send(world, nested("red"))
    assert world.result(ref) == {"child": {"box": 1}}
    with world.reading() as tx:
        rows = tx.all(select(job.c.parent_id, job.c.account_id).where(job.c.parent_id.is_not(None)))
    assert [dict(row) for row in rows] == [{"parent_id": ref.id, "account_id": 2}]


def test_a_childs_error_becomes_its_parents(world: World) -> None:
    break_boxes(world, 1, 2)
    code, text = world.failure(send(world, nested("red")))
    assert (code, text.split(":")[0]) == (533, "no box")
    assert balls(world) == {}


def test_the_first_lease_holder_stops_when_it_was_too_slow(world: World) -> None:
    ref = send(world, put("red"))
    slow = Engine(world.db, owner="slow")
    held = slow.claim()
    assert held is not None
    assert world.engine.claim() is None, "the lease keeps others away"
    world.clock.advance(30)
    assert world.result(ref) == {"box": 1}
    before = lines(world)
    slow.run(held)
    assert lines(world) == before, "what the slow one did is rolled back"
    assert world.job(ref)["phase"] == "succeeded"


def test_a_slow_holder_cannot_fail_a_job_that_another_finished(world: World) -> None:
    ref = send(world, put("red"))
    slow = Engine(world.db, owner="slow", steps={})
    held = slow.claim()
    world.clock.advance(30)
    world.result(ref)
    assert held is not None
    slow.run(held)
    assert world.job(ref)["phase"] == "succeeded"


def test_a_job_with_a_step_that_no_server_knows_gets_stuck_and_is_not_undone_by_half(world: World) -> None:
    ref = send(world, put("red"))
    world.steps = {name: step for name, step in world.steps.items() if name != "toy.close"}
    world.new_engine()
    world.settle()
    assert world.job(ref)["phase"] == "stuck"
    assert balls(world) == {"red": 1}
    world.steps = steps
    world.new_engine()
    with world.db.write() as tx:
        retry(tx, ref.id)
    world.failure(ref)
    assert balls(world) == {}


def test_a_job_given_back_between_steps_is_runnable_at_once(world: World) -> None:
    ref = send(world, put("red"))
    held = world.engine.claim()
    assert held is not None
    world.engine.run(held, stopping=lambda: True)
    assert lines(world) == []
    assert world.result(ref) == {"box": 1}
