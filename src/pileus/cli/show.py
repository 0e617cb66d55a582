"""What the command line prints: steps with their times, tables, complaints."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PIPE_WIDTH = 250
"""Columns when no terminal says otherwise: what reads a pipe wants one thing a line."""

out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True)

MOST_COLUMNS = 8
FIRST = ("id", "name", "displayname", "displaytext", "state", "status", "ipaddress", "type", "created")


def complain(text: str, *, label: str = "error") -> None:
    """An error a person can read, or with another label what to do about it."""
    colour = "red" if label == "error" else "yellow"
    err.print(f"[{colour}]{label}:[/{colour}] {escape(text)}", soft_wrap=True)


@contextmanager
def step(text: str) -> Iterator[Progress]:
    """A line that spins while the block runs and then says how long it took. The block may change its description."""
    began = time.monotonic()
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        bar.add_task(text)
        yield bar
    err.print(f"  [green]✓[/green] {escape(text)} [dim]{time.monotonic() - began:.1f} s[/dim]")


def told(bar: Progress, text: str) -> None:
    """Change what a running step says."""
    bar.update(bar.task_ids[0], description=text)


def as_json(body: object) -> None:
    """The answer, indented."""
    out.print_json(json.dumps(body))


def as_table(body: Mapping[str, Any]) -> None:
    """A list as a table, a single thing as name and value; anything else as JSON."""
    lists = {name: entry for name, entry in body.items() if isinstance(entry, list)}
    if not body or (len(lists) == 1 and set(body) <= {*lists, "count"}):
        rows = next(iter(lists.values()), [])
        if rows and all(isinstance(row, dict) for row in rows):
            _rows(rows, int(body.get("count", len(rows))))
        elif not rows:
            err.print("nothing found")
        else:
            as_json(rows)
        return
    things = [entry for entry in body.values() if isinstance(entry, dict)]
    thing = things[0] if len(things) == 1 and len(body) == 1 else body
    table = Table(show_header=False, box=None)
    for name, entry in thing.items():
        table.add_row(f"[bold]{escape(name)}[/bold]", escape(_short(entry)))
    out.print(table)


def _rows(rows: Sequence[Mapping[str, Any]], count: int) -> None:
    names = {name for row in rows for name in row if not isinstance(row[name], list | dict)}
    ordered = [name for name in FIRST if name in names] + sorted(names - set(FIRST))
    table = Table(box=None)
    for name in ordered[:MOST_COLUMNS]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(_short(row.get(name, ""))) for name in ordered[:MOST_COLUMNS]))
    out.print(table)
    if count > len(rows):
        err.print(f"{len(rows)} of {count}; ask for more with page=2 pagesize={len(rows)}")


def _short(entry: object) -> str:
    if isinstance(entry, list | dict):
        return json.dumps(entry)
    return "true" if entry is True else "false" if entry is False else str(entry)
