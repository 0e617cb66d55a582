"""Settings: those said to be obeyed are read by code, and those that are not say so."""

import ast
from pathlib import Path

import pileus.server
from pileus.server.config import accepted, every, is_used, keys
from pileus.server.config.key import Key

SERVER = Path(pileus.server.__file__).parent
OBEYED = {name: key for name, key in vars(keys).items() if isinstance(key, Key)}


def names_read() -> set[str]:
    """Attributes and imported names of all modules of the server but those that declare settings."""
    found: set[str] = set()
    for file in SERVER.rglob("*.py"):
        if file.parent != SERVER / "config":
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Attribute):
                    found.add(node.attr)
                elif isinstance(node, ast.ImportFrom) and node.module == keys.__name__:
                    found |= {each.name for each in node.names}
    return found


def test_every_setting_that_is_said_to_be_obeyed_is_read_by_code() -> None:
    assert set(OBEYED) - names_read() == set()


def test_every_setting_is_either_obeyed_or_says_that_it_is_not() -> None:
    unused = {key.name for key in accepted.ACCEPTED}
    assert {name for name in every if not is_used(name)} == unused
    assert {key.name for key in OBEYED.values()} == set(every) - unused
