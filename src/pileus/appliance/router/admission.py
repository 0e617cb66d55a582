"""Which new connections the firewall lets in: rules that may overlap, as elements that never do. Pure, no I/O.

The kernel's interval sets take no overlapping elements. Sources are CIDRs, and of two CIDRs one holds the other or
they have nothing in common: so a rule keeps, source by source, the ports that no rule of the same or a wider source
has. Every element belongs to one rule, whose mark the connection gets. One more rule is looked at beside those that
overlap it only.
"""

import socket
import zlib
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from operator import eq
from typing import NamedTuple, TypeVar

import msgspec

from pileus.appliance.router.sets import marked, spanned
from pileus.wire.router import FirewallRule

_T = TypeVar("_T")

FEW = 8
MANY = 50_000
"""So many items are looked at beside as many others, one by one; with more, the whole place is divided anew."""

Place = tuple[str, str]
"""Public address and protocol."""


class Item(NamedTuple):
    """One source of one rule. Their order is that of precedence: the widest source first."""

    prefix: int
    low: int
    start: int
    end: int
    mark: int
    high: int

    @property
    def source(self) -> str:
        """The CIDR as nft reads it."""
        address = socket.inet_ntoa(self.low.to_bytes(4, "big"))
        return address if self.prefix == 32 else f"{address}/{self.prefix}"


Divided = dict[Item, tuple[tuple[int, int], ...]]
"""The ports that each item has for itself."""


@dataclass(frozen=True)
class Step:
    """The elements and marks that lead from one admission, known by its token, to the next."""

    since: object
    gone: frozenset[str]
    come: frozenset[str]
    marks_gone: frozenset[str]
    marks_come: frozenset[str]


@dataclass(frozen=True)
class Admission:
    """The rules, and the mark of each by id; made by `admission`, never changed."""

    rules: tuple[FirewallRule, ...]
    marks: Mapping[str, int]
    places: Mapping[Place, Divided]
    step: Step | None = None
    token: object = field(default_factory=object)

    def elements(self) -> frozenset[str]:
        """Everything that is let in."""
        return frozenset(text for place, divided in self.places.items() for text in _texts(place, divided, divided))

    def live(self) -> frozenset[str]:
        """The marks of all rules, as text."""
        return frozenset(map(marked, self.marks.values()))

    def step_from(self, before: "Admission") -> Step:
        """What leads from `before` here: looked up where this one was made from it, worked out otherwise."""
        if self.token is before.token:
            return Step(before.token, *[frozenset()] * 4)
        if self.step is not None and self.step.since is before.token:
            return self.step
        old, new, dead, live = before.elements(), self.elements(), before.live(), self.live()
        return Step(before.token, old - new, new - old, dead - live, live - dead)


NOBODY = Admission((), {}, {})


def admission(rules: tuple[FirewallRule, ...], before: Admission = NOBODY) -> Admission:
    """The admission of `rules`; work done for `before` is used again where nothing changed."""
    gone, come = differing(before.rules, rules)
    if not gone and not come:
        return before
    marks = dict(before.marks)
    removed: defaultdict[Place, set[Item]] = defaultdict(set)
    added: defaultdict[Place, set[Item]] = defaultdict(set)
    for rule in gone:
        removed[rule.ip, rule.protocol] |= _items(rule, marks.pop(rule.id))
    used = set(marks.values())
    for rule in come:
        marks[rule.id] = _mark(rule, used)
        added[rule.ip, rule.protocol] |= _items(rule, marks[rule.id])
    places = dict(before.places)
    fewer: set[str] = set()
    more: set[str] = set()
    for place in removed.keys() | added.keys():
        old = before.places.get(place, {})
        new, touched = _changed(old, removed[place], added[place])
        fewer.update(_texts(place, old, touched))
        more.update(_texts(place, new, touched))
        places[place] = new
        if not new:
            del places[place]
    dead = {marked(before.marks[rule.id]) for rule in gone}
    live = {marked(marks[rule.id]) for rule in come}
    step = Step(
        before.token, frozenset(fewer - more), frozenset(more - fewer), frozenset(dead - live), frozenset(live - dead)
    )
    return Admission(rules, marks, places, step)


def differing(old: tuple[_T, ...], new: tuple[_T, ...]) -> tuple[list[_T], list[_T]]:
    """What is only in `old`, and only in `new`. Where one of many differs only its neighbourhood is looked at."""
    head = next((at for at, same in enumerate(map(eq, old, new)) if not same), min(len(old), len(new)))
    rest = min(len(old), len(new)) - head
    backwards = map(eq, reversed(old), reversed(new))
    tail = next((at for at, same in enumerate(islice(backwards, rest)) if not same), rest)
    middle_old, middle_new = old[head : len(old) - tail], new[head : len(new) - tail]
    known, wanted = frozenset(middle_old), frozenset(middle_new)
    return [one for one in middle_old if one not in wanted], [one for one in middle_new if one not in known]


def divide(items: Collection[Item]) -> Divided:
    """The ports that each item has for itself: its own without those of items that come before it."""
    covers: dict[tuple[int, int], _Cover] = defaultdict(_Cover)
    prefixes: list[int] = []
    divided: Divided = {}
    for item in sorted(items):
        pieces = [(item.start, item.end)]
        for prefix in prefixes:
            mask = (0xFFFFFFFF << (32 - prefix)) & 0xFFFFFFFF
            wider = covers.get((prefix, item.low & mask))
            if wider is not None:
                pieces = [rest for piece in pieces for rest in wider.without(*piece)]
        divided[item] = tuple(pieces)
        cover = covers[item.prefix, item.low]
        for piece in pieces:
            cover.add(*piece)
        if item.prefix not in prefixes:
            insort(prefixes, item.prefix)
    return divided


class _Cover:
    """Ranges of ports that have nothing in common."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Take in a range that overlaps none."""
        at = bisect_left(self._starts, start)
        self._starts.insert(at, start)
        self._ends.insert(at, end)

    def without(self, start: int, end: int) -> list[tuple[int, int]]:
        """What of a range is not covered."""
        rest = []
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        for at in range(first, last):
            if start < self._starts[at]:
                rest.append((start, self._starts[at] - 1))
            start = self._ends[at] + 1
        if start <= end:
            rest.append((start, end))
        return rest


def _changed(old: Divided, removed: set[Item], added: set[Item]) -> tuple[Divided, set[Item]]:
    """`old` without and with these items, and those whose ports may be others now."""
    new = dict(old)
    for item in removed:
        del new[item]
    new |= dict.fromkeys(added, ())
    touched = _overlapping(new, removed | added)
    # What an item has depends on those that overlap it, all of which are beside it.
    beside = _overlapping(new, touched) if touched is not None else None
    if touched is None or beside is None:
        return divide(new), old.keys() | new.keys()
    again = divide(beside)
    for item in touched:
        new[item] = again[item]
    return new, touched | removed


def _overlapping(items: Iterable[Item], others: Collection[Item]) -> set[Item] | None:
    """Those of `items` that have something in common with one of `others`; None where these are too many to look."""
    windows = _merged((item.start, item.end) for item in others)
    if len(windows) > FEW:
        return None
    near: list[Item] = []
    for first, last in windows:
        near += [item for item in items if item[2] <= last and item[3] >= first]
        if len(near) * len(others) > MANY:
            return None
    return {
        item
        for item in near
        for other in others
        if item.start <= other.end and item.end >= other.start and item.low <= other.high and item.high >= other.low
    }


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _texts(place: Place, divided: Divided, items: Iterable[Item]) -> Iterable[str]:
    ip, protocol = place
    for item in items:
        for start, end in divided.get(item, ()):
            yield f"{spanned(start, end)} . {item.source} . {ip} . {protocol} : {marked(item.mark)}"


def _items(rule: FirewallRule, mark: int) -> set[Item]:
    start, end = _asked(rule)
    items = set()
    for cidr in rule.cidrs:
        address, _, bits = cidr.partition("/")
        prefix = int(bits or 32)
        span = (1 << (32 - prefix)) - 1
        low = int.from_bytes(socket.inet_aton(address), "big") & ~span
        items.add(Item(prefix, low, start, end, mark, low | span))
    return items


def _asked(rule: FirewallRule) -> tuple[int, int]:
    """First and last port; conntrack keeps ICMP's type and code where it keeps the port of others."""
    if rule.protocol != "icmp":
        return rule.start, rule.end
    if rule.icmp_type < 0:
        return 0, 0xFFFF
    first = rule.icmp_type << 8
    return (first, first | 0xFF) if rule.icmp_code < 0 else (first | rule.icmp_code, first | rule.icmp_code)


def _mark(rule: FirewallRule, used: set[int]) -> int:
    """A mark of the rule's own: the same in every life of the router, unless another rule has it."""
    mark = zlib.crc32(msgspec.json.encode(rule))
    while mark in used or mark == 0:
        mark = (mark + 1) & 0xFFFFFFFF
    used.add(mark)
    return mark
