"""Reconcilers: functions without input that keep an invariant true, one runner in the farm at a time.

Each has a row in `lease`: `ran_at` is when its last run began, ASKED when somebody asked for one since, and RUNNING
until it ends: a run that its server did not survive is due again as soon as the lease is over. A run that raises is
logged and comes again with the next period. The lease is renewed while the function runs.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import structlog
from sqlalchemy import BigInteger, RowMapping, bindparam, case, insert, select, update
from sqlalchemy.exc import IntegrityError

from pileus.server.db import rows
from pileus.server.db.moment import clock_of, database_now, now_expression, now_parameter
from pileus.server.db.prepared import Prepared
from pileus.server.db.tables.job import lease
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs.wakeup import RECONCILERS, announce_reconcilers, ignore, listen
from pileus.server.meter import LONG_SECONDS, Counter, Histogram, seconds

log = structlog.get_logger()

RUNS = Counter(
    "pileus_reconciler_runs_total", "Runs of reconcilers on this server: done or failed", "reconciler", "outcome"
)
RUN_SECONDS = Histogram(
    "pileus_reconciler_run_seconds", "How long runs of reconcilers took", "reconciler", bounds=LONG_SECONDS
)

Run = Callable[[Database], None]

LEASE_SECONDS = 30.0
STALLED_SECONDS = 60.0

ASKED = 0
RUNNING = -1


@dataclass(frozen=True)
class Reconciler:
    """A registered reconciler."""

    name: str
    period_seconds: float
    run: Run


reconcilers: dict[str, Reconciler] = {}
"""Every reconciler by name."""


def reconciler(name: str, *, period_seconds: float) -> Callable[[Run], Run]:
    """Register a reconciler under its permanent name ("expunge")."""

    def register(run: Run) -> Run:
        if name in reconcilers:
            raise ValueError(f"reconciler {name} is registered twice")
        reconcilers[name] = Reconciler(name, period_seconds, run)
        return run

    return register


def trigger(tx: Tx, name: str) -> None:
    """Have the reconciler run soon after the commit, and once more if it is running now."""
    if not _ASKING.changed(tx, the_name=name):
        _ensured(tx, name, ran_at=ASKED)
    tx.after_commit(announce_reconcilers)


_ASKING = Prepared(
    update(lease).where(lease.c.name == bindparam("the_name"), lease.c.ran_at != ASKED).values(ran_at=ASKED)
)


def triggered(tx: Tx) -> dict[str, int]:
    """The reconcilers that somebody asked for or whose server died, and when the lease that stands on each is over."""
    return {row["name"]: int(row["until_at"]) for row in _TRIGGERED.all(tx)}


_TRIGGERED = Prepared(select(lease.c.name, lease.c.until_at).where(lease.c.ran_at <= ASKED).order_by(lease.c.name))


def due(tx: Tx) -> list[str]:
    """The registered reconcilers that nobody runs now and whose time has come, the longest overdue first."""
    free = _free(clock_of(tx)).all(tx, **now_parameter(tx))
    known = [(reconcilers[row["name"]], row["ran_at"]) for row in free if row["name"] in reconcilers]
    return [each.name for each, ran_at in known if ran_at + each.period_seconds * 1000 <= tx.now]


@cache
def _free(clock: str) -> Prepared:
    found = select(lease.c.name, lease.c.ran_at).where(lease.c.until_at <= now_expression(clock))
    return Prepared(found.order_by(lease.c.ran_at, lease.c.name))


def ensure_all(tx: Tx, *, ran_at: int = ASKED) -> None:
    """Give every registered reconciler its row."""
    known = set(tx.execute(select(lease.c.name)).scalars())
    for name in reconcilers.keys() - known:
        _ensured(tx, name, ran_at=ran_at)


def run_once(db: Database, name: str, *, owner: str, lease_seconds: float = LEASE_SECONDS) -> bool:
    """Take the lease, run, give it back. False when another holds it. Raises what the reconciler raises."""
    claim = _claim(db, name, owner, lease_seconds)
    if claim is None:
        return False
    began = seconds()
    try:
        reconcilers[name].run(db)
    except Exception:
        RUNS.add(name, "failed")
        _release(db, name, claim)
        raise
    RUNS.add(name, "done")
    RUN_SECONDS.observe(seconds() - began, name)
    _release(db, name, claim)
    return True


def take_away(tx: Tx, owner: str) -> int:
    """End the leases of a server that is dead or was given up: what it was running is due again at once."""
    held = update(lease).where(lease.c.owner == owner)
    taken = int(tx.execute(held.values(owner=None, until_at=0, token=lease.c.token + 1)).rowcount)
    if taken:
        tx.after_commit(announce_reconcilers)
    return taken


def _ensured(tx: Tx, name: str, *, ran_at: int) -> RowMapping:
    row = rows.one(tx, lease, name=name)
    if row is None:
        # Another server may have just added it.
        with suppress(IntegrityError), tx.connection.begin_nested():
            tx.execute(insert(lease).values(name=name, until_at=0, ran_at=ran_at))
        row = rows.one(tx, lease, name=name)
    assert row is not None  # noqa: S101 (rows of reconcilers are never removed)
    return row


@dataclass(frozen=True)
class _Claim:
    token: int
    began_at: int


def _claim(db: Database, name: str, owner: str, lease_seconds: float) -> _Claim | None:
    def claim(tx: Tx) -> _Claim | None:
        row = _ensured(tx, name, ran_at=ASKED)
        token = int(row["token"])
        # Who asks from now on, even before the function has looked at anything, asks for another run.
        taken = _claiming(clock_of(tx)).changed(
            tx,
            the_name=name,
            seen_token=token,
            new_token=token + 1,
            new_owner=owner,
            lease_ms=int(lease_seconds * 1000),
            **now_parameter(tx),
        )
        return _Claim(token + 1, tx.now) if taken else None

    return db.run(claim)


@cache
def _claiming(clock: str) -> Prepared:
    now = now_expression(clock)
    return Prepared(
        update(lease)
        .where(lease.c.name == bindparam("the_name"), lease.c.token == bindparam("seen_token"), lease.c.until_at <= now)
        .values(
            owner=bindparam("new_owner"),
            token=bindparam("new_token"),
            until_at=now + bindparam("lease_ms", type_=BigInteger),
            ran_at=RUNNING,
        )
    )


def _release(db: Database, name: str, claim: _Claim) -> None:
    def release(tx: Tx) -> None:
        _RELEASING.changed(tx, the_name=name, the_token=claim.token, began_at=claim.began_at)
        tx.after_commit(announce_reconcilers)

    db.run(release)


_RELEASING = Prepared(
    update(lease)
    .where(lease.c.name == bindparam("the_name"), lease.c.token == bindparam("the_token"))
    .values(
        owner=None,
        until_at=0,
        # Asked again while it ran: it is due again.
        ran_at=case((lease.c.ran_at == RUNNING, bindparam("began_at", type_=BigInteger)), else_=lease.c.ran_at),
    )
)


def _renew(db: Database, name: str, owner: str, lease_seconds: float) -> None:
    mine = update(lease).where(lease.c.name == name, lease.c.owner == owner)
    db.run(lambda tx: tx.execute(mine.values(until_at=database_now(tx) + int(lease_seconds * 1000))))


class ReconcilerPool:
    """Runs the farm's reconcilers on this server: those that are due and that no other server runs now."""

    def __init__(
        self,
        db: Database,
        *,
        owner: str,
        threads: int = 2,
        lease_seconds: float = LEASE_SECONDS,
        poll_seconds: float = 1.0,
    ) -> None:
        self._db = db
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._poll_seconds = poll_seconds
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="reconciler")
        self._running: set[str] = set()
        self._lock = threading.Lock()
        self._signal = threading.Event()
        self._stopped = False
        self._looked_at = time.monotonic()
        self._thread = threading.Thread(target=self._schedule, name="reconcilers", daemon=True)

    def start(self) -> None:
        """Begin to run reconcilers as they fall due."""
        self._db.run(ensure_all)
        listen(self._signal.set, RECONCILERS)
        self._thread.start()

    def trouble(self) -> str:
        """What keeps reconcilers from being run here, or ""."""
        if not self._thread.is_alive():
            return "the scheduler has ended"
        silent = time.monotonic() - self._looked_at
        return f"nothing was looked at for {silent:.0f} s" if silent > STALLED_SECONDS else ""

    def stop(self, *, seconds: float = 10.0) -> bool:
        """Start no more runs and wait for those under way. False when the scheduler did not end in time."""
        ignore(self._signal.set, RECONCILERS)
        self._stopped = True
        self._signal.set()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _schedule(self) -> None:
        renewed_at = 0
        while not self._stopped:
            self._signal.clear()
            self._looked_at = time.monotonic()
            try:
                for name in self._due():
                    self._begin(name)
                if self._db.clock.now() - renewed_at > self._lease_seconds * 1000 / 3:
                    renewed_at = self._db.clock.now()
                    with self._lock:
                        running = sorted(self._running)
                    for name in running:
                        _renew(self._db, name, self._owner, self._lease_seconds)
            except Exception:
                log.exception("reconcilers could not be scheduled")
            self._signal.wait(self._poll_seconds)
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _due(self) -> list[str]:
        with self._db.read() as tx:
            names = due(tx)
        with self._lock:
            return [name for name in names if name not in self._running]

    def _begin(self, name: str) -> None:
        with self._lock:
            self._running.add(name)
        self._executor.submit(self._run, name)

    def _run(self, name: str) -> None:
        try:
            run_once(self._db, name, owner=self._owner, lease_seconds=self._lease_seconds)
        except Exception:
            log.exception("reconciler failed", reconciler=name)
        finally:
            with self._lock:
                self._running.discard(name)
            self._signal.set()
