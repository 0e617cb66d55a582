"""How workflows are written: steps with their undo beneath them, blocks that may try elsewhere, plans.

A workflow is a generator of step calls. It runs once, when the job is submitted, touches nothing, and yields the whole
plan; arguments are plain JSON values (ids, numbers, strings, lists), so a stored plan means the same to every server.
Step names are schema: stored jobs hold them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

Action = Callable[..., None]
"""`def action(ctx: StepContext, **arguments) -> None`: runs inside one transaction (`ctx.tx`); may raise signals."""


@dataclass(frozen=True)
class StepCall:
    """One step with its arguments. `block` is the number of the block it belongs to, 0 for none."""

    step: str
    arguments: dict[str, Any]
    block: int = 0


@dataclass(frozen=True)
class Block:
    """Steps that are undone together when one of them raises `TryElsewhere`, and tried again another way."""

    calls: tuple[StepCall, ...]


class Step:
    """A registered step. Calling it makes a `StepCall`; `.undo` registers what makes it not so."""

    def __init__(self, name: str, do: Action) -> None:
        self.name = name
        self.do = do
        self.back: Action | None = None

    def __call__(self, **arguments: Any) -> StepCall:
        return StepCall(self.name, arguments)

    def undo(self, action: Action) -> Action:
        """Register the undo: idempotent, and right even if the step did nothing or only half of its work."""
        self.back = action
        return action


steps: dict[str, Step] = {}
"""Every step by name."""


def step(name: str) -> Callable[[Action], Step]:
    """Register a step under its permanent name ("vm.place")."""

    def register(do: Action) -> Step:
        if name in steps:
            raise ValueError(f"step {name} is registered twice")
        steps[name] = Step(name, do)
        return steps[name]

    return register


def try_elsewhere(*calls: StepCall) -> Block:
    """A block: the first call usually chooses a place and avoids what `ctx.avoid` holds."""
    return Block(calls)


@dataclass(frozen=True)
class Plan:
    """A whole saga, ready to be stored."""

    workflow: str
    calls: tuple[StepCall, ...]

    def encode(self) -> str:
        """As stored in `job.plan`."""
        return msgspec.json.encode(self.calls, enc_hook=_plain).decode()


def _plain(value: Any) -> int:
    """Typed ids are integers of a class of their own, which JSON knows nothing of."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"a plan holds plain JSON values, not {type(value).__name__}")


def decode(workflow: str, stored: str) -> Plan:
    """The inverse of `Plan.encode`."""
    return Plan(workflow, msgspec.json.decode(stored, type=tuple[StepCall, ...]))


class Workflow(Protocol):
    """A registered workflow: call it with its arguments to get the plan."""

    name: str
    module: str
    """Where it is written."""

    def __call__(self, *args: Any, **kwargs: Any) -> Plan: ...


workflows: dict[str, Workflow] = {}
"""Every workflow by name."""

Parts = Iterator[StepCall | Block]


def workflow(name: str) -> Callable[[Callable[..., Parts]], Workflow]:
    """Register a workflow under its permanent name ("vm.deploy")."""

    def register(generator: Callable[..., Parts]) -> Workflow:
        if name in workflows:
            raise ValueError(f"workflow {name} is registered twice")

        def plan(*args: Any, **kwargs: Any) -> Plan:
            calls: list[StepCall] = []
            blocks = 0
            for part in generator(*args, **kwargs):
                if isinstance(part, Block):
                    blocks += 1
                    calls += [StepCall(c.step, c.arguments, blocks) for c in part.calls]
                else:
                    calls.append(part)
            return Plan(name, tuple(calls))

        plan.name = name  # type: ignore[attr-defined]
        plan.module = generator.__module__  # type: ignore[attr-defined]
        plan.__doc__ = generator.__doc__
        workflows[name] = plan  # type: ignore[assignment]
        return workflows[name]

    return register
