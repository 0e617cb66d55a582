"""How much of API 2.2 is there: commands, their parameters, the fields of their responses. --missing lists what is not.

`tools/api_2_2.json` holds the names of that API, without `starteventid`, which servers of that time told themselves.
A field counts once per kind of response, if any command that answers with this kind has it.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pileus.server.api.command import CommandSpec, registry
from pileus.server.api.parse import table
from pileus.server.registered import register_all

FACTS = Path(__file__).parent / "api_2_2.json"


@dataclass(frozen=True)
class Part:
    """One kind of thing that is counted. `missing` names what is not there."""

    noun: str
    there: int
    of: int
    missing: list[str]


def coverage(facts: dict[str, Any], specs: dict[str, CommandSpec]) -> list[Part]:
    """Commands, parameters, response fields, in this order."""
    commands: dict[str, Any] = facts["commands"]
    absent = sorted(set(commands) - set(specs))
    wanted = {(name, each) for name, command in commands.items() for each in command["params"]}
    have = {(name, field.wire) for name, spec in specs.items() for field in table(spec.params)}
    fields = {(name, each) for name, response in facts["responses"].items() for each in response}
    told = {
        (commands[name]["response"], field)
        for name, spec in specs.items()
        if name in commands
        for field in _fields(spec)
    }
    return [
        Part("commands", len(commands) - len(absent), len(commands), absent),
        _part("parameters", wanted, have),
        _part("response fields", fields, told),
    ]


def _part(noun: str, wanted: set[tuple[str, str]], have: set[tuple[str, str]]) -> Part:
    missing: dict[str, list[str]] = {}
    for owner, name in sorted(wanted - have):
        missing.setdefault(owner, []).append(name)
    return Part(
        noun, len(wanted & have), len(wanted), [f"{owner}: {', '.join(some)}" for owner, some in missing.items()]
    )


def _fields(spec: CommandSpec) -> set[str]:
    names = {field.wire for field in spec.returns.fields}
    return names | {"jobid", "jobstatus"} if spec.returns.kind is not None else names


def main() -> int:
    """Print the counts."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--missing", action="store_true", help="list what is not there")
    chosen = options.parse_args()
    register_all()
    for part in coverage(json.loads(FACTS.read_text()), registry):
        print(f"{part.there} of {part.of} {part.noun}")
        if chosen.missing:
            print("".join(f"    {one}\n" for one in part.missing), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
