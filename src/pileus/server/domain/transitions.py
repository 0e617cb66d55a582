"""Transition tables: the only way an entity's state may change."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

S = TypeVar("S", bound=StrEnum)


class Transitions(Generic[S]):
    """Which state may follow which. The compare-and-set in `db.transition` obeys it."""

    def __init__(self, table: Mapping[S, tuple[S, ...]]) -> None:
        self.table = dict(table)

    def allows(self, old: S, new: S) -> bool:
        """Whether `new` may follow `old` directly."""
        return new in self.table.get(old, ())

    def before(self, new: S) -> tuple[S, ...]:
        """All states from which `new` can be reached in one step."""
        return tuple(old for old, following in self.table.items() if new in following)
