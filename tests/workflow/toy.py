"""Toy workflows for tests of the engine: boxes that hold balls, in a table of their own."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert, select, update

from pileus.server.domain.errors import InsufficientCapacity
from pileus.server.jobs.children import child, children_settled, result_of
from pileus.server.jobs.context import Nap, StepContext, TryElsewhere
from pileus.server.jobs.plan import Block, Plan, StepCall, step, try_elsewhere, workflow
from pileus.server.jobs.submit import JobRef, Owner, submit
from pileus.testing import World

toys = MetaData()

box = Table(
    "toy_box",
    toys,
    Column("id", Integer, primary_key=True),
    Column("size", Integer, nullable=False),
    Column("used", Integer, nullable=False, default=0),
    Column("broken", Integer, nullable=False, default=0),
)
ball = Table("toy_ball", toys, Column("name", String(80), primary_key=True), Column("box_id", Integer, nullable=True))
bell = Table("toy_bell", toys, Column("name", String(80), primary_key=True), Column("rung", Integer, nullable=False))
diary = Table("toy_diary", toys, Column("id", Integer, primary_key=True), Column("line", String(80), nullable=False))

OWNER = Owner(account_id=2, domain_id=1, user_id=2)


@dataclass
class Moods:
    """What toy steps are told to do. Outside of plans, as bugs are."""

    undo_breaks: int = 0
    """How often the undo of `toy.make` fails before it works."""


moods = Moods()


def write(ctx: StepContext, line: str) -> None:
    ctx.tx.execute(insert(diary).values(line=line))


@step("toy.make")
def make(ctx: StepContext, ball_name: str) -> None:
    if ctx.tx.scalar(select(ball.c.name).where(ball.c.name == ball_name)) is None:
        ctx.tx.execute(insert(ball).values(name=ball_name))
    write(ctx, f"make {ball_name}")


@make.undo
def unmake(ctx: StepContext, ball_name: str) -> None:
    if moods.undo_breaks > 0:
        moods.undo_breaks -= 1
        raise OSError("the undo is broken")
    ctx.tx.execute(delete(ball).where(ball.c.name == ball_name))
    write(ctx, f"unmake {ball_name}")


@step("toy.choose")
def choose(ctx: StepContext, ball_name: str) -> None:
    if ctx.tx.scalar(select(ball.c.box_id).where(ball.c.name == ball_name)) is not None:
        return
    for row in ctx.tx.all(select(box).order_by(box.c.id)):
        if f"box:{row['id']}" not in ctx.avoid and row["used"] < row["size"]:
            ctx.tx.execute(update(box).where(box.c.id == row["id"]).values(used=box.c.used + 1))
            ctx.tx.execute(update(ball).where(ball.c.name == ball_name).values(box_id=row["id"]))
            write(ctx, f"choose {row['id']} round {ctx.round}")
            return
    raise InsufficientCapacity("no box: " + "; ".join(f"{key}: {reason}" for key, reason in sorted(ctx.avoid.items())))


@choose.undo
def give_back(ctx: StepContext, ball_name: str) -> None:
    box_id = ctx.tx.scalar(select(ball.c.box_id).where(ball.c.name == ball_name))
    if box_id is not None:
        ctx.tx.execute(update(box).where(box.c.id == box_id).values(used=box.c.used - 1))
        ctx.tx.execute(update(ball).where(ball.c.name == ball_name).values(box_id=None))
        write(ctx, f"give back {box_id} round {ctx.round}")


@step("toy.close")
def close(ctx: StepContext, ball_name: str) -> None:
    row = ctx.tx.one(select(box).join(ball, ball.c.box_id == box.c.id).where(ball.c.name == ball_name))
    assert row is not None
    if row["broken"]:
        raise TryElsewhere(f"box:{row['id']}", "its lid is broken")
    ctx.set_result(box=row["id"])


@step("toy.hear")
def hear(ctx: StepContext, bell_name: str) -> None:
    """Wait for a bell."""
    if not ctx.tx.scalar(select(bell.c.rung).where(bell.c.name == bell_name)):
        raise Nap(topic=f"bell:{bell_name}")
    write(ctx, f"heard {bell_name}")


@step("toy.sleep")
def sleep(ctx: StepContext, ball_name: str) -> None:
    """Sleep a minute, once."""
    line = f"slept {ball_name}"
    if ctx.tx.scalar(select(diary.c.id).where(diary.c.line == line)) is None:
        write(ctx, line)
        raise Nap(60)


@step("toy.ask_child")
def ask_child(ctx: StepContext, ball_name: str) -> None:
    ref = child(ctx, put(f"{ball_name}-child"), command="toy", resource_key=f"ball:{ball_name}-child")
    ctx.set_result(child=dict(result_of(ctx, ref.id)))


@ask_child.undo
def take_child_back(ctx: StepContext, ball_name: str) -> None:
    children_settled(ctx)
    box_id = ctx.tx.scalar(select(ball.c.box_id).where(ball.c.name == f"{ball_name}-child"))
    if box_id is not None:
        ctx.tx.execute(update(box).where(box.c.id == box_id).values(used=box.c.used - 1))
    ctx.tx.execute(delete(ball).where(ball.c.name == f"{ball_name}-child"))


@step("toy.done")
def done(ctx: StepContext, ball_name: str) -> None:
    write(ctx, f"done {ball_name}")


@workflow("toy.put")
def put(ball_name: str) -> Iterator[StepCall | Block]:
    yield make(ball_name=ball_name)
    yield try_elsewhere(choose(ball_name=ball_name), close(ball_name=ball_name))
    yield done(ball_name=ball_name)


@workflow("toy.nested")
def nested(ball_name: str) -> Iterator[StepCall | Block]:
    yield make(ball_name=ball_name)
    yield sleep(ball_name=ball_name)
    yield ask_child(ball_name=ball_name)
    yield done(ball_name=ball_name)


@workflow("toy.wait")
def wait(bell_name: str) -> Iterator[StepCall | Block]:
    yield make(ball_name=f"waits-{bell_name}")
    yield hear(bell_name=bell_name)


@workflow("toy.nothing")
def nothing() -> Iterator[StepCall | Block]:
    yield from ()


def open_toys(world: World, *, boxes: int = 2, size: int = 3) -> None:
    """Empty boxes, numbered from 1."""
    moods.undo_breaks = 0
    toys.create_all(world.db.writing)
    with world.db.write() as tx:
        for number in range(1, boxes + 1):
            tx.execute(insert(box).values(id=number, size=size))


def send(
    world: World, plan: Plan, *, key: str | None = None, seconds: float = 3600, wait_for_turn: bool = True
) -> JobRef:
    """Submit a plan in a transaction of its own."""
    with world.db.write() as tx:
        return submit(
            tx,
            plan,
            OWNER,
            command="toy",
            resource_key=key,
            deadline_seconds=seconds,
            queue=wait_for_turn,
        )


def lines(world: World) -> list[str]:
    """The diary."""
    with world.reading() as tx:
        return [row["line"] for row in tx.all(select(diary).order_by(diary.c.id))]


def balls(world: World) -> dict[str, int | None]:
    """Each ball and its box."""
    with world.reading() as tx:
        return {row["name"]: row["box_id"] for row in tx.all(select(ball))}


def used(world: World) -> list[int]:
    """What each box has given away."""
    with world.reading() as tx:
        return [row["used"] for row in tx.all(select(box).order_by(box.c.id))]
