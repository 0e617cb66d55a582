"""Everything that is counted, as Prometheus reads it. Loaded at the first scrape: an idle server needs none of it.

What only the database knows is asked for at a scrape, in a fixed number of queries, and kept for a few seconds: however
many scrape, and however often, the database hardly feels it. Without a database the rest is shown all the same.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from pileus import __version__
from pileus.server.db.queries import capacity_sums, standing
from pileus.server.db.transaction import Database
from pileus.server.domain.capacity import summed
from pileus.server.meter import Counter, Histogram, instruments

KEPT_SECONDS = 5.0

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


@dataclass(frozen=True)
class Gauge:
    """A number that goes up and down."""

    name: str
    text: str
    labels: tuple[str, ...] = ()

    def family(self, values: Mapping[Any, float]) -> GaugeMetricFamily:
        """It with its values by tuples of label values."""
        made = GaugeMetricFamily(self.name, self.text, labels=self.labels)
        for labels, value in sorted(values.items()):
            made.add_metric(labels, value)
        return made


BUILD = Gauge("pileus_build_info", "1; the version is in the label", ("version",))
CALLS_NOW = Gauge("pileus_api_calls_in_progress", "Calls that this server is answering")
AGENTS = Gauge("pileus_agent_connections", "Agents connected to this server")
AGENT_HOSTS = Gauge("pileus_agent_hosts_connected", "Hosts that this server reaches; one agent may have many")
POOL = Gauge(
    "pileus_database_connections",
    "Connections of this server to its database: in use, or open and idle",
    ("pool", "state"),
)
UP = Gauge("pileus_database_up", "1 when the database answered the last scrape; without it, what follows is absent")
JOBS = Gauge("pileus_jobs", "Jobs of the cloud that have not ended: queued, running, waiting, stuck", ("state",))
OPERATIONS = Gauge("pileus_host_operations_pending", "Operations of the cloud that hosts have not answered")
HOSTS = Gauge("pileus_hosts", "Hosts of the cloud by kind and state", ("kind", "state"))
CAPACITY = Gauge(
    "pileus_capacity_total",
    "What there is: bytes, MHz, or a number of addresses or VLANs; types as in listCapacity",
    ("zone", "type"),
)
USED = Gauge("pileus_capacity_used", "What is in use of it", ("zone", "type"))

GAUGES = (BUILD, CALLS_NOW, AGENTS, AGENT_HOSTS, POOL, UP, JOBS, OPERATIONS, HOSTS, CAPACITY, USED)

OPEN_STATES = ("queued", "running", "waiting", "stuck")


class Exposition:
    """The page. `live` reads gauges of this process by name: calls, agents, hosts."""

    def __init__(self, database: Database, live: Mapping[str, Callable[[], int]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Everything(database, live))
        ProcessCollector(registry=self._registry)

    def page(self) -> bytes:
        """The text, computed now. Blocks for some milliseconds: never call it in the event loop."""
        return generate_latest(self._registry)


class _Everything(Collector):
    def __init__(self, database: Database, live: Mapping[str, Callable[[], int]]) -> None:
        self._database = database
        self._live = live
        self._lock = threading.Lock()
        self._kept: list[GaugeMetricFamily] = []
        self._kept_until = 0.0

    def collect(self) -> Iterable[Family]:
        yield BUILD.family({(__version__,): 1})
        for gauge in (CALLS_NOW, AGENTS, AGENT_HOSTS):
            yield gauge.family({(): self._live[gauge.name]()})
        yield POOL.family(dict(self._connections()))
        for instrument in sorted(instruments.values(), key=lambda each: each.name):
            yield _counter(instrument) if isinstance(instrument, Counter) else _histogram(instrument)
        yield from self._asked()

    def _connections(self) -> Iterator[tuple[tuple[str, str], float]]:
        for name, engine in (("write", self._database.writing), ("read", self._database.reading)):
            if isinstance(engine.pool, QueuePool):
                yield (name, "used"), engine.pool.checkedout()
                yield (name, "idle"), engine.pool.checkedin()

    def _asked(self) -> list[GaugeMetricFamily]:
        # Who comes while another asks waits for that answer.
        with self._lock:
            if time.monotonic() >= self._kept_until:
                try:
                    self._kept = [UP.family({(): 1}), *self._ask()]
                except SQLAlchemyError:
                    self._kept = [UP.family({(): 0})]
                self._kept_until = time.monotonic() + KEPT_SECONDS
            return self._kept

    def _ask(self) -> Iterator[GaugeMetricFamily]:
        with self._database.read() as tx:
            found = standing.open_jobs(tx)
            yield JOBS.family({(state,): found.get(state, 0) for state in OPEN_STATES})
            yield OPERATIONS.family({(): standing.unanswered_operations(tx)})
            yield HOSTS.family(standing.hosts(tx))
            names = standing.zone_names(tx)
            there = [
                ((names[each.zone_id], each.type.name.lower()), each)
                for each in summed(capacity_sums.everywhere(tx), clusters=False, pods=False)
                if each.zone_id in names
            ]
            yield CAPACITY.family({key: each.total for key, each in there})
            yield USED.family({key: each.used for key, each in there})


def _counter(instrument: Counter) -> CounterMetricFamily:
    made = CounterMetricFamily(instrument.name, instrument.text, labels=instrument.labels)
    values = instrument.values() or ({} if instrument.labels else {(): 0.0})
    for labels, value in sorted(values.items()):
        made.add_metric(labels, value)
    return made


def _histogram(instrument: Histogram) -> HistogramMetricFamily:
    made = HistogramMetricFamily(instrument.name, instrument.text, labels=instrument.labels)
    for labels, (counts, total) in sorted(instrument.series().items()):
        buckets, below = [], 0.0
        for bound, number in zip([*map(str, instrument.bounds), "+Inf"], counts, strict=True):
            below += number
            buckets.append((bound, below))
        made.add_metric(labels, buckets, sum_value=total)
    return made
