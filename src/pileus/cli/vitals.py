"""What a server says of itself at /healthz and /metrics, read for people: what is wrong, and what to do about it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

FAILING = 0.1
"""The share of a reconciler's runs that fail which is worth a word; one in passing mends itself at the next."""
CROWDED = 0.9
"""The share of a capacity in use that is worth a word."""

_MENDS = {
    "database": "look at the database server; the management server goes on by itself once it answers",
    "jobs": "look for 'job interrupted' in the server's log, then restart the server: its jobs go on where they are",
    "reconcilers": "look for 'reconciler' in the server's log, then restart the server",
    "agents": "restart the server; if another program has the agents' port, stop that or change [agents] port",
    "draining": "wait until it has stopped; pileus up starts it again",
}
_SAMPLE = re.compile(r"^(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `mend` is empty when it is well."""

    what: str
    mend: str = ""


Samples = dict[str, dict[tuple[str, ...], float]]
"""Values by metric and by label values, in the order of the labels' names."""


def vitals(endpoint: str) -> Iterator[Finding]:
    """Health and metrics of the server behind the URL of an API. Says nothing of a server that cannot be reached."""
    answer, page = _page(endpoint, "/healthz"), _page(endpoint, "/metrics")
    if answer is None or page is None:
        return
    yield from _health(answer)
    if page.status_code == httpx.codes.OK:
        yield from _numbers(samples(page.text))
    else:
        yield Finding("the server shows its metrics to others only ([metrics] peers in its file)")


def health(endpoint: str) -> list[Finding]:
    """Health alone; empty for a server that cannot be reached."""
    answer = _page(endpoint, "/healthz")
    return [] if answer is None else list(_health(answer))


def _page(endpoint: str, path: str) -> httpx.Response | None:
    parts = urlsplit(endpoint)
    try:
        return httpx.get(f"{parts.scheme}://{parts.netloc}{path}", timeout=10, trust_env=False)
    except httpx.HTTPError:
        return None


def samples(page: str) -> Samples:
    """Read a page in the text format of Prometheus, as far as we use it."""
    found: Samples = {}
    for line in page.splitlines():
        if sample := _SAMPLE.match(line):
            labels = tuple(value for _, value in sorted(_LABEL.findall(sample["labels"] or "")))
            found.setdefault(sample["name"], {})[labels] = float(sample["value"])
    return found


def _health(answer: httpx.Response) -> Iterator[Finding]:
    if answer.status_code == httpx.codes.OK:
        yield Finding("the server is in good health")
        return
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        yield Finding(f"/healthz answers {answer.status_code}", "is it a Pileus server? check the endpoint")
        return
    for line in answer.text.splitlines():
        mend = _MENDS.get(line.partition(":")[0], "look into the server's log")
        yield Finding(f"the server is ill: {line}", mend)


def _numbers(found: Samples) -> Iterator[Finding]:
    jobs = {labels[0]: int(value) for labels, value in found.get("pileus_jobs", {}).items()}
    stuck = jobs.pop("stuck", 0)
    if jobs:
        yield Finding("jobs: " + ", ".join(f"{number} {state}" for state, number in jobs.items()))
    if stuck:
        yield Finding(
            f"{stuck} jobs are stuck: they cannot undo what they began",
            "listAlerts names each and its reason; mend that, then retry it",
        )
    runs = found.get("pileus_reconciler_runs_total", {})
    for name in sorted({name for _, name in runs}):
        done, failed = runs.get(("done", name), 0.0), runs.get(("failed", name), 0.0)
        if failed > FAILING * (done + failed):
            yield Finding(
                f"reconciler {name} failed in {failed:.0f} of {done + failed:.0f} runs since the server started",
                f'look for "reconciler failed" and "{name}" in the server\'s log',
            )
    totals = found.get("pileus_capacity_total", {})
    for labels, used in found.get("pileus_capacity_used", {}).items():
        total = totals.get(labels, 0.0)
        if total and used / total > CROWDED:
            # Labels stand in the order of their names.
            kind, zone = labels
            yield Finding(
                f"zone {zone}: {100 * used / total:.0f} % of {kind.replace('_', ' ')} is in use",
                "add hosts, storage or addresses, or free some",
            )
    resident = found.get("process_resident_memory_bytes", {}).get(())
    if resident:
        yield Finding(f"the server holds {resident / 1e6:.0f} MB of memory")
