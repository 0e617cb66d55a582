"""All hosts of a zone, judged and ordered: one by one where they are few, in columns where they are many.

Both say the same of every host; which one is asked is a matter of time and memory alone.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import structlog

from pileus.server.placement.allocators import ByKey, Narrowing, Wanted
from pileus.server.placement.facts import Cloud, HostFacts, Zone
from pileus.server.placement.reasons import REASONS, Question, Reason, of_host
from pileus.server.placement.storage import Storage

if TYPE_CHECKING:
    from pileus.server.placement.columns import Columns

FEW = 256
"""Up to this many hosts of a zone are looked at one by one."""

_FITS = int(Reason.FITS)
"""To a column of numbers, a member of an enumeration is a slow one."""

_log = structlog.get_logger(__name__)


class Search(Protocol):
    """What is known of a zone's hosts with regard to one question."""

    def best(self, wanted: Wanted, order: Sequence[Narrowing]) -> HostFacts | None:
        """The host to be taken: the preferred one of the demand, or else the first in the order of allocators."""
        ...

    def counts(self) -> Counter[Reason]:
        """How many hosts have each reason."""
        ...

    def judged(self, *, at_most: Reason = max(Reason)) -> Iterator[tuple[HostFacts, Reason]]:
        """Hosts in the order of keys with their reasons, without those whose reason is told before `at_most`."""
        ...


def search(cloud: Cloud, question: Question, *, few: int | None = None) -> Search:
    """Judge all hosts of the demand's zone."""
    zone = cloud.zone(question.demand.zone_id)
    if len(zone.hosts) <= (FEW if few is None else few):
        return Few(cloud, zone, question)
    if zone.columns is None:
        columns = _columns()
        if columns is None:
            return Few(cloud, zone, question)
        zone.columns = columns.Columns(cloud, zone)
    return Many(zone.columns, question)


def _columns() -> Any:
    try:
        # Loaded on purpose no earlier: small clouds have no use for it.
        return import_module("pileus.server.placement.columns")
    except ImportError as error:
        _log.warning("many hosts are searched slowly: numpy is not there", reason=str(error))
        return None


class Few:
    """Hosts one by one."""

    def __init__(self, cloud: Cloud, zone: Zone, question: Question) -> None:
        self._question = question
        storage = Storage(cloud, question)
        hosts = (cloud.hosts[host_id] for host_id in zone.hosts)
        self._judged = [(host, of_host(cloud, host, question) or storage.reason(host)) for host in hosts]

    def best(self, wanted: Wanted, order: Sequence[Narrowing]) -> HostFacts | None:
        hosts = [host for host, reason in self._judged if reason is Reason.FITS]
        refused = _refused(wanted, order, hosts)
        if refused:
            self._question.refused_hosts.update(refused)
            self._judged = [(host, Reason.ALLOCATOR if host.id in refused else reason) for host, reason in self._judged]
            hosts = [host for host in hosts if host.id not in refused]
        if not hosts:
            return None
        preferred = [host for host in hosts if host.id == wanted.demand.rather]
        if preferred:
            return preferred[0]
        for allocator in order:
            if len(hosts) == 1:
                break
            hosts = allocator.few(wanted, hosts)
        return hosts[0]

    def counts(self) -> Counter[Reason]:
        return Counter(reason for _, reason in self._judged)

    def judged(self, *, at_most: Reason = max(Reason)) -> Iterator[tuple[HostFacts, Reason]]:
        return (each for each in self._judged if each[1] <= at_most)


class Many:
    """Hosts in columns."""

    def __init__(self, columns: "Columns", question: Question) -> None:
        self._columns = columns
        self._question = question
        self._codes = columns.codes(question)

    def best(self, wanted: Wanted, order: Sequence[Narrowing]) -> HostFacts | None:
        fit = self._codes == _FITS
        hosts = self._columns.hosts
        if any(isinstance(allocator, ByKey) for allocator in order):
            refused = _refused(wanted, order, [hosts[row] for row in fit.nonzero()[0]])
            self._question.refused_hosts.update(refused)
            for host_id in refused:
                row = self._columns.row_of(host_id)
                self._codes[row] = int(Reason.ALLOCATOR)
                fit[row] = False
        if self._columns.first(fit) is None:
            return None
        if wanted.demand.rather is not None and self._columns.holds(wanted.demand.rather, fit):
            return hosts[self._columns.row_of(wanted.demand.rather)]
        for allocator in order:
            fit = allocator.many(wanted, self._columns, fit)
        return hosts[int(fit.argmax())]

    def counts(self) -> Counter[Reason]:
        return self._columns.counted(self._codes)

    def judged(self, *, at_most: Reason = max(Reason)) -> Iterator[tuple[HostFacts, Reason]]:
        rows = (self._codes <= int(at_most)).nonzero()[0]
        return ((self._columns.hosts[row], REASONS[self._codes[row]]) for row in rows)


def _refused(wanted: Wanted, order: Sequence[Narrowing], hosts: list[HostFacts]) -> Mapping[int, str]:
    """Hosts that an allocator refuses, with the reason of the first one that does."""
    found: dict[int, str] = {}
    for allocator in order:
        if isinstance(allocator, ByKey):
            found.update(allocator.refused(wanted, [host for host in hosts if host.id not in found]))
    return found
