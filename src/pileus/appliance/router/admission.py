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
from dataclasses import dataclass
from itertools import islice
from operator import eq
from typing import NamedTuple, TypeVar

import msgspec

from pileus.appliance.router.sets import marked, spanned
from pileus.wire.router import FirewallRule

_T = TypeVar("_T")

FEW = 64
"""As many overlapping items are looked for one by one; with more, the whole place is divided anew."""

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
class Admission:
    """The rules, the mark of each by id, and their elements; made by `admission`, never changed."""

    rules: tuple[FirewallRule, ...]
    marks: Mapping[str, int]
    places: Mapping[Place, Divided]
    elements: frozenset[str]


NOBODY = Admission((), {}, {}, frozenset())


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
    return Admission(rules, marks, places, (before.elements - fewer) | more)


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
    items = (old.keys() - removed) | added
    differing_items = removed | added
    touched = _overlapping(items, differing_items) if len(differing_items) <= FEW else None
    beside = _overlapping(items, touched) if touched is not None and len(touched) <= FEW else None
    if touched is None or beside is None:
        return divide(items), old.keys() | items
    # What an item has depends on those that overlap it, all of which are beside it.
    again = divide(beside)
    new = {item: pieces for item, pieces in old.items() if item not in removed} if removed else dict(old)
    for item in touched | added:
        new[item] = again[item]
    return new, touched | differing_items


def _overlapping(items: Iterable[Item], others: Iterable[Item]) -> set[Item]:
    found: set[Item] = set()
    for other in others:
        _, low, start, end, _, high = other
        found.update(
            item
            for item in items
            if item[2] <= end and item[3] >= start and item[1] <= high and item[5] >= low  # ports, then sources
        )
    return found


def _texts(place: Place, divided: Divided, items: Iterable[Item]) -> Iterable[str]:
    ip, protocol = place
    for item in items:
        for start, end in divided.get(item, ()):
            yield f"{ip} . {protocol} . {spanned(start, end)} . {item.source} : {marked(item.mark)}"


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
