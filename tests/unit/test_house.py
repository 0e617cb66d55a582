"""What the tools of the house write and find."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pileus.server.api.command import registry
from pileus.server.registered import register_all

ROOT = Path(__file__).parents[2]


def written(out: Path) -> str:
    done = subprocess.run(
        [sys.executable, "tools/reference.py", str(out)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference")
    written(out)
    return out


def test_every_command_has_its_place_in_the_reference(reference: Path) -> None:
    register_all()
    headings = [
        line[3:] for path in reference.glob("*.md") if path.stem != "README"
        for line in path.read_text().splitlines() if line.startswith("## ")
    ]  # fmt: skip
    assert sorted(headings) == sorted(registry)
    document = json.loads((reference / "openapi.json").read_text())
    assert sorted(document["paths"]) == sorted(f"/{name}" for name in registry)


def test_every_link_of_the_reference_leads_somewhere(reference: Path) -> None:
    links = 0
    for path in reference.glob("*.md"):
        for target, anchor in re.findall(r"\]\(([\w.]+)(?:#(\w+))?\)", path.read_text()):
            links += 1
            assert (reference / target).exists(), f"{path.name}: {target}"
            if anchor:
                headings = {line[3:].lower() for line in (reference / target).read_text().splitlines()}
                assert anchor in headings, f"{path.name}: {target}#{anchor}"
    assert links > len(registry)


def test_every_table_of_the_reference_is_whole(reference: Path) -> None:
    for path in reference.glob("*.md"):
        columns = 0
        for line in path.read_text().splitlines():
            bars = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not (bars and columns) or bars == columns, f"{path.name}: {line}"
            columns = bars


def test_the_reference_replaces_itself_and_nothing_else(reference: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("# Mine\n")
    written(tmp_path)
    stale = tmp_path / "gone.md"
    stale.write_text((tmp_path / "zone.md").read_text())
    written(tmp_path)
    assert not stale.exists()
    assert (tmp_path / "mine.md").read_text() == "# Mine\n"
    for path in reference.iterdir():
        assert (tmp_path / path.name).read_text() == path.read_text()


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("src/pileus/server/helpers.py", "", "name the subject"),
        ("src/pileus/server/long.py", "x = 1\n" * 601, "601 lines"),
        ("src/pileus/server/half.py", "# TO" + "DO: more\n", "unfinished"),
        ("src/pileus/server/dice.py", "import random\n", "never `random`"),
        ("src/pileus/server/db/migrations/versions/0002_late.py", 'revision = "0002"\n', "next free number is 0001"),
        (
            "src/pileus/server/db/migrations/versions/0001_off.py",
            'revision = "0001"\ndown_revision = "0007"\n',
            "is None",
        ),
        ("src/pileus/agent/dice.py", "from random import choice\n", "never `random`"),
    ],
)
def test_the_house_rules_find_what_breaks_them(tmp_path: Path, name: str, content: str, word: str) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    tool = [sys.executable, str(ROOT / "tools" / "house.py")]
    assert subprocess.run(tool, cwd=tmp_path, capture_output=True).returncode == 0
    path.write_text(content)
    done = subprocess.run(tool, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert name in done.stdout
    assert word in done.stdout
