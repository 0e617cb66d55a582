"""Many views of one kind, column by column: what the longest lists are made of.

A page of five hundred views of forty fields is twenty thousand values. As columns they go from the database's rows to
the answer without a step of Python for each of them (`api.render`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pileus.server.db.queries.page import Lookup
from pileus.server.db.transaction import Tx


@dataclass(frozen=True)
class Columns:
    """Views of `keys`, in that order. `fields` has a value per view for each field; None means absent."""

    keys: Sequence[int]
    fields: Mapping[str, Sequence[Any]]
    same: Mapping[str, Any] = field(default_factory=dict)
    """What is said of every one alike."""
    parts: Mapping[str, "Parts"] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def views(self) -> list[dict[str, Any]]:
        """The same, one mapping per view."""
        within = {name: list(part.of_each(part.columns.views())) for name, part in self.parts.items()}
        columns = {**self.fields, **within}
        rows = zip(*columns.values(), strict=True) if columns else (() for _ in self.keys)
        return [{**dict(zip(columns, row, strict=True)), **self.same} for row in rows]


@dataclass(frozen=True)
class Parts:
    """Views within views: the first view's come first, and `counts` says how many each of them has."""

    columns: Columns
    counts: Sequence[int]

    def of_each(self, parts: Iterable[Any]) -> Iterator[list[Any]]:
        """One list for each view, of whatever was made of the parts, in their order."""
        if set(self.counts) == {1}:
            return ([part] for part in parts)
        further = iter(parts)
        return (list(islice(further, count)) for count in self.counts)


def looked_up(tx: Tx, lookup: Lookup, keys: Sequence[int | None]) -> dict[str, Sequence[Any]]:
    """The columns of a lookup for every key; None where a key is None or has no row."""
    distinct = set(keys)
    found = lookup.by_key(tx, distinct)
    nothing = (None,) * (len(lookup.names) + 1)
    if len(distinct) == 1:
        (only,) = distinct
        values = found.get(only, nothing)[1:]
        return {name: (value,) * len(keys) for name, value in zip(lookup.names, values, strict=True)}
    rows = [found.get(key, nothing) for key in keys]
    return dict(zip(lookup.names, islice(zip(*rows, strict=True), 1, None), strict=True)) if rows else {}
