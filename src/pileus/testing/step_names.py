"""Step names and their arguments are schema: stored jobs hold them, and a new server must be able to run them.

`python -m pileus.testing.step_names FILE` adds new steps to the record. It never drops one: a line may go by hand once
no stored job of any supported version can hold the step.
"""

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path

from pileus.server.jobs.plan import Step, steps
from pileus.testing.world import load_registered

PRODUCT = "pileus.server."


def recorded(text: str) -> dict[str, tuple[str, ...]]:
    """Step name → arguments, from lines like `vm.place vm`. Empty lines and those that begin with # say nothing."""
    lines = [line.split() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return {name: tuple(arguments) for name, *arguments in lines}


def product_steps() -> dict[str, Step]:
    """Every step of the product, toys of tests left out."""
    load_registered(strict=True)
    return {name: step for name, step in steps.items() if step.do.__module__.startswith(PRODUCT)}


def complaints(known: Mapping[str, tuple[str, ...]], present: Mapping[str, Step]) -> list[str]:
    """What a stored job could not be run with, and what is not on record yet."""
    wrong = [f"step {name} is gone, and stored jobs may hold it" for name in known if name not in present]
    for name, step in present.items():
        if name not in known:
            wrong.append(f"step {name} is not on record: python -m pileus.testing.step_names FILE adds it")
            continue
        for role, action in (("", step.do), ("the undo of ", step.back)):
            if action is None:
                continue
            accepted = _arguments(action)
            lost = [argument for argument in known[name] if argument not in accepted]
            wrong += [f"{role}step {name} does not take {argument} any more" for argument in lost]
            new = [argument for argument, needed in accepted.items() if needed and argument not in known[name]]
            wrong += [f"{role}step {name} needs {argument}, which stored jobs do not have" for argument in new]
    return wrong


def line_of(step: Step) -> str:
    """The step as it is recorded."""
    return " ".join((step.name, *_arguments(step.do)))


def add_new(file: Path) -> list[str]:
    """Add steps that are not on record; returns their lines."""
    text = file.read_text() if file.exists() else ""
    known = recorded(text)
    new = [line_of(step) for name, step in product_steps().items() if name not in known]
    comments = [line for line in text.splitlines() if line.startswith("#")]
    rest = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    file.write_text("\n".join([*comments, *sorted([*rest, *new])]) + "\n")
    return new


def _arguments(action: object) -> dict[str, bool]:
    """Argument → whether a call must give it; the context left out."""
    parameters = list(inspect.signature(action).parameters.values())[1:]  # type: ignore[arg-type]
    return {parameter.name: parameter.default is inspect.Parameter.empty for parameter in parameters}


if __name__ == "__main__":
    for added in add_new(Path(sys.argv[1])):
        sys.stdout.write(f"{added}\n")
