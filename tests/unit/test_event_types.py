"""Event types: which of them code emits, and which wait for a feature that is not built yet."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pileus.server
from pileus.server.api.command import registry
from pileus.server.events import types
from pileus.server.registered import register_all

SERVER = Path(pileus.server.__file__).parent
NAMES = {name: value for name, value in vars(types).items() if name.isupper() and isinstance(value, str)}

NOT_EMITTED = frozenset((Path(__file__).parent / "event_types_not_emitted.txt").read_text().split())
"""Types of the API that no code emits yet. Whoever builds the feature takes its types out of here."""


def named_in(file: Path) -> Iterator[str]:
    """Names of event types that a module speaks of, as `types.VM_START` or by an import of their own."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == types.__name__:
            yield from (each.name for each in node.names if each.name in NAMES)


def emitted() -> set[str]:
    """Types that services, workflows or reconcilers speak of; commands only declare what these emit."""
    found = set()
    for file in SERVER.rglob("*.py"):
        if file != Path(types.__file__) and "api" not in file.relative_to(SERVER).parts:
            found |= {NAMES[name] for name in named_in(file)}
    return found


def test_exactly_the_listed_types_are_emitted_by_no_code() -> None:
    assert set(NAMES.values()) - emitted() == NOT_EMITTED


def test_what_commands_declare_to_emit_is_emitted() -> None:
    register_all()
    declared = {type for spec in registry.values() for type in spec.emits}
    assert declared <= emitted()


def test_every_command_that_changes_something_declares_what_it_emits() -> None:
    register_all()
    silent = {name for name, spec in registry.items() if not spec.reads and not spec.public and not spec.emits}
    assert silent <= KNOWN_SILENT


KNOWN_SILENT = frozenset({"updateHost", "updateHostPassword", "updateResourceCount"})
"""Commands that the API has no event type for."""
