"""This server's place among the servers of a farm: it beats, it watches the others, it takes over from the dead.

A server is dead when its beat has not moved for `MISSED` looks in a row. Looks are counted, no clocks compared: a
machine that was paused, or whose clock jumped, buries nobody. Being wrong is safe: leases that are taken away move
their fencing tokens, and a server that finds itself buried comes in again.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pileus.server.db.queries import server as servers
from pileus.server.db.queries.server import Seen
from pileus.server.db.transaction import Database, Tx
from pileus.server.jobs import hold, reconciler

log = structlog.get_logger(__name__)

BEAT_SECONDS = 1.0
MISSED = 6


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Consequences:
    """What follows. `on_dead` runs in the transaction that buries the named server; the others in the beating thread.

    `on_given_up`: the farm had buried us, and whatever we held may be held by others. `on_superseded`: another process
    came under our name, so this one has to end.
    """

    on_dead: Callable[[Tx, str], None] = _nothing
    on_given_up: Callable[[], None] = _nothing
    on_superseded: Callable[[], None] = _nothing


@dataclass
class _Watched:
    seen: Seen
    missed: int = 0


class Membership:
    """Enter before anything is claimed under this name; leave when nothing is held any more."""

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        address: str,
        version: str,
        consequences: Consequences | None = None,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._database = database
        self._name = name
        self._address = address
        self._version = version
        self._consequences = consequences or Consequences()
        self._beat_seconds = beat_seconds
        self._started_at = 0
        self._watched: dict[str, _Watched] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="membership", daemon=True)

    @property
    def others(self) -> frozenset[str]:
        """Names of the other servers that live, as of the last look."""
        return frozenset(name for name, watched in list(self._watched.items()) if watched.missed < MISSED)

    def enter(self) -> None:
        """Take the place of this name. What a former life under it held is free at once."""

        def enter(tx: Tx) -> tuple[int, int]:
            started_at = servers.enter(tx, self._name, address=self._address, version=self._version)
            return started_at, _take_away(tx, self._name)

        self._started_at, freed = self._database.run(enter)
        if freed:
            log.info("farm.resumed", leases=freed)

    def start(self) -> None:
        """Beat and watch from now on."""
        self._thread.start()

    def leave(self, *, seconds: float = 10.0) -> bool:
        """Give the place up. False when the thread did not end in time."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        self._database.run(lambda tx: servers.leave(tx, self._name, self._started_at))
        return not self._thread.is_alive()

    def _beat_on(self) -> None:
        while not self._stopped.is_set():
            try:
                self.look()
            except Exception:
                # The database is away, for all of us perhaps; whoever is alive comes back.
                log.exception("farm.look_failed")
            self._stopped.wait(self._beat_seconds)

    def look(self) -> None:
        """Beat once and look at the others once. Runs by itself every second."""
        if not self._database.run(lambda tx: servers.beat(tx, self._name, self._started_at)):
            self._lost()
            return
        with self._database.read() as tx:
            there = [seen for seen in servers.all_there(tx) if seen.name != self._name]
        for gone in self._watched.keys() - {seen.name for seen in there}:
            del self._watched[gone]
        for seen in there:
            watched = self._watched.get(seen.name)
            if watched is None or watched.seen != seen:
                self._watched[seen.name] = _Watched(seen)
                continue
            watched.missed += 1
            if watched.missed >= MISSED:
                self._bury(seen)

    def _lost(self) -> None:
        with self._database.read() as tx:
            superseded = any(seen.name == self._name for seen in servers.all_there(tx))
        if superseded:
            log.error("farm.superseded", name=self._name)
            self._stopped.set()
            self._consequences.on_superseded()
            return
        log.warning("farm.was_buried", name=self._name)
        self._watched.clear()
        self.enter()
        self._consequences.on_given_up()

    def _bury(self, dead: Seen) -> None:
        def bury(tx: Tx) -> int | None:
            if not servers.bury(tx, dead):
                return None
            taken = _take_away(tx, dead.name)
            self._consequences.on_dead(tx, dead.name)
            return taken

        taken = self._database.run(bury)
        self._watched.pop(dead.name, None)
        if taken is not None:
            log.warning("farm.buried", server=dead.name, leases=taken)


def _take_away(tx: Tx, name: str) -> int:
    return hold.take_away(tx, name) + reconciler.take_away(tx, name)
