"""House rules that no linter knows: file sizes, banned names and phrases. Prints each breach and exits 1."""

import ast
import re
import subprocess
import sys
from pathlib import Path

MOST_LINES = 600
BANNED_NAMES = {"manager", "helper", "helpers", "util", "utils", "impl", "base", "common", "misc"}
SECRET_ROOMS = ("src/pileus/server", "src/pileus/agent", "src/pileus/appliance", "src/pileus/cli")
UNFINISHED = re.compile(r"NotImplementedError|\bTODO\b|\bFIXME\b|\bXXX\b|mark\.skip\b|mark\.xfail")


def tracked() -> list[Path]:
    """Python files of the tree, as git knows them."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"], check=True, capture_output=True, text=True
    )
    return [path for line in listed.stdout.splitlines() if (path := Path(line)).exists()]


def breaches(path: Path) -> list[str]:
    """What is wrong with one file."""
    text = path.read_text()
    found = []
    lines = text.count("\n")
    if lines > MOST_LINES and "migrations" not in path.parts:
        found.append(f"{path}: {lines} lines, at most {MOST_LINES}: split it by subject")
    if path.stem in BANNED_NAMES:
        found.append(f"{path}: a name that says nothing; name the subject")
    if not str(path).startswith("tools/"):
        found += [
            f"{path}:{number}: unfinished: {line.strip()}"
            for number, line in enumerate(text.splitlines(), 1)
            if UNFINISHED.search(line)
        ]
    if str(path).startswith(SECRET_ROOMS):
        found += _random_imports(path, text)
    return found


def _twins(paths: list[Path]) -> list[str]:
    """Test modules of the same name hide each other when all suites run together."""
    seen: dict[str, Path] = {}
    found = []
    for path in paths:
        if path.parts[0] == "tests" and path.name not in ("conftest.py", "__init__.py"):
            other = seen.setdefault(path.name, path)
            if other != path:
                found.append(f"{path}: has the same name as {other}: name it for what only it shows")
    return found


def _random_imports(path: Path, text: str) -> list[str]:
    """`random` is predictable: only simulation may use it."""
    if "simulator" in path.parts or "# jitter" in text:
        return []
    return [
        f"{path}:{node.lineno}: use `secrets`, never `random` (a file that only jitters says '# jitter')"
        for node in ast.walk(ast.parse(text))
        if (isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and node.module == "random")
    ]


def _decisions(directory: Path = Path("docs/decisions")) -> list[str]:
    """Each decision has a number of its own, and says it."""
    found = []
    seen: dict[str, Path] = {}
    for path in sorted(directory.glob("*.md")):
        number = path.name.partition("-")[0]
        if number in seen:
            found.append(f"{path}: {seen[number].name} has that number; take the next free one")
        seen[number] = path
        if not path.read_text().startswith(f"# {int(number)}. "):
            found.append(f"{path}: its first line begins with '# {int(number)}. '")
    return found


def _migrations(directory: Path = Path("src/pileus/server/db/migrations/versions")) -> list[str]:
    """Migrations are one chain, numbered without a gap, each after the one before it."""
    found = []
    before: str | None = None
    for number, path in enumerate(sorted(directory.glob("0*.py")), start=1):
        said = dict(re.findall(r'^(revision|down_revision) = (?:"(\d+)"|None)', path.read_text(), re.MULTILINE))
        if path.name[:4] != f"{number:04d}" or said.get("revision") != path.name[:4]:
            found.append(f"{path}: the next free number is {number:04d}, in its name and as its revision")
        elif (said.get("down_revision") or None) != before:
            found.append(f"{path}: its down_revision is {before}")
        before = f"{number:04d}"
    return found


def main() -> int:
    """Check every file."""
    paths = tracked()
    found = [breach for path in paths for breach in breaches(path)] + _twins(paths)
    found += _decisions() + _migrations()
    for breach in found:
        sys.stdout.write(breach + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
