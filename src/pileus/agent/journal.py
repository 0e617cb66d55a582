"""The agent's durable memory: which operations it began, what it answered, which lives it ended.

One SQLite file per agent process, every commit synced to disk. An entry without an answer after a crash means
"run it again"; an entry with one means "say the same again". A forgotten answer is kept for a while, because a
duplicate of its delivery may still be on its way.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from pileus.wire.messages import Answer
from pileus.wire.places import NetworkRef

T = TypeVar("T")

KEEP_SECONDS = 3600.0
"""How long an answer stays after its `Forget`."""

_SCHEMA = """
CREATE TABLE operation (
    host TEXT NOT NULL, operation_id TEXT NOT NULL, begun_at INTEGER NOT NULL,
    answer BLOB, forgotten_at INTEGER, PRIMARY KEY (operation_id, host)
) WITHOUT ROWID;
CREATE INDEX operation_unforgotten ON operation (host) WHERE answer IS NOT NULL AND forgotten_at IS NULL;
CREATE INDEX operation_forgotten ON operation (forgotten_at) WHERE forgotten_at IS NOT NULL;
CREATE TABLE fence (host TEXT NOT NULL, uuid TEXT NOT NULL, epoch INTEGER NOT NULL, PRIMARY KEY (host, uuid))
    WITHOUT ROWID;
CREATE TABLE plugged (host TEXT NOT NULL, name TEXT NOT NULL, networks BLOB NOT NULL, PRIMARY KEY (host, name))
    WITHOUT ROWID;
PRAGMA user_version = 1;
"""

_answers = msgspec.msgpack.Decoder(Answer)
_networks = msgspec.msgpack.Decoder(tuple[NetworkRef, ...])
_encode = msgspec.msgpack.Encoder().encode


class Offload(Protocol):
    """Runs a blocking call somewhere it may block."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]: ...


async def at_once(work: Callable[[], T]) -> T:
    """The `Offload` of a journal in memory: nothing there blocks."""
    return work()


class JournalUnusable(Exception):
    """The file is not a journal of this version."""


class Journal:
    """Entries of all hosts of one agent process. Safe to use from several tasks."""

    def __init__(
        self,
        path: Path | None,
        *,
        offload: Offload = asyncio.to_thread,
        wall_clock: Callable[[], float] = time.time,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """Open or create the file. Raises `JournalUnusable`. Without a path it lives in memory."""
        self._offload = offload
        self._wall_clock = wall_clock
        self._keep_ms = round(keep_seconds * 1000)
        self._lock = threading.Lock()
        self._db = _open(path)

    @classmethod
    def in_memory(cls, *, wall_clock: Callable[[], float] = time.time) -> "Journal":
        """A journal that ends with the process, for simulated hosts; its calls never wait."""
        return cls(None, offload=at_once, wall_clock=wall_clock)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def copy_into(self, other: "Journal") -> None:
        """Have another journal hold what this one holds, and nothing else."""
        with self._lock, other._lock:
            self._db.backup(other._db)

    async def begin(self, host: str, operation_id: str) -> Answer | None:
        """The first answer if there is one; else the operation is written down as begun and None returned."""
        return await self._offload(lambda: self._begin(host, operation_id))

    async def finish(self, answer: Answer) -> Answer:
        """Store the answer. Returns what counts: the stored one, if there was one already."""
        return await self._offload(lambda: self._finish(answer))

    async def unforgotten(self, host: str) -> list[Answer]:
        """Answers of this host that no `Forget` has named, oldest first."""
        return await self._offload(lambda: self._unforgotten(host))

    async def all_unforgotten(self) -> list[Answer]:
        """Answers of all hosts that no `Forget` has named, oldest first."""
        return await self._offload(self._all_unforgotten)

    async def forget(self, operation_ids: tuple[str, ...]) -> None:
        """The server has these answers; drop what was forgotten long enough ago."""
        await self._offload(lambda: self._forget(operation_ids))

    async def fence(self, host: str, uuid: str, epoch: int) -> None:
        """From now on no life of `uuid` up to `epoch` may start on this host."""
        await self._offload(
            lambda: self._write(
                "INSERT INTO fence VALUES (?, ?, ?)"
                " ON CONFLICT (host, uuid) DO UPDATE SET epoch = max(epoch, excluded.epoch)",
                (host, uuid, epoch),
            )
        )

    async def fenced(self, host: str, uuid: str) -> int:
        """The newest epoch of `uuid` that was ended on this host, or -1."""
        row = await self._offload(
            lambda: self._row("SELECT epoch FROM fence WHERE host = ? AND uuid = ?", (host, uuid))
        )
        return -1 if row is None else int(row[0])

    async def note_networks(self, host: str, name: str, networks: tuple[NetworkRef, ...]) -> None:
        """Remember that the named guest may be plugged into these, besides those noted before."""
        await self._offload(lambda: self._note(host, name, networks))

    async def noted_networks(self, host: str, name: str) -> tuple[NetworkRef, ...]:
        """All networks noted for the name."""
        return await self._offload(lambda: self._noted(host, name))

    async def drop_networks(self, host: str, name: str) -> None:
        """The named guest is plugged into nothing any more."""
        await self._offload(lambda: self._write("DELETE FROM plugged WHERE host = ? AND name = ?", (host, name)))

    def _begin(self, host: str, operation_id: str) -> Answer | None:
        with self._lock, self._db:
            row = self._db.execute(
                "SELECT answer FROM operation WHERE host = ? AND operation_id = ?", (host, operation_id)
            ).fetchone()
            if row is None:
                self._db.execute(
                    "INSERT INTO operation (host, operation_id, begun_at) VALUES (?, ?, ?)",
                    (host, operation_id, self._now()),
                )
                return None
            return None if row[0] is None else _answers.decode(row[0])

    def _finish(self, answer: Answer) -> Answer:
        key = (answer.host, answer.operation_id)
        with self._lock, self._db:
            self._db.execute(
                "INSERT INTO operation (host, operation_id, begun_at, answer) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (operation_id, host) DO UPDATE SET answer = coalesce(answer, excluded.answer)",
                (*key, self._now(), _encode(answer)),
            )
            row = self._db.execute("SELECT answer FROM operation WHERE host = ? AND operation_id = ?", key).fetchone()
            return _answers.decode(row[0])

    def _unforgotten(self, host: str) -> list[Answer]:
        with self._lock:
            rows = self._db.execute(
                "SELECT answer FROM operation WHERE host = ? AND answer IS NOT NULL AND forgotten_at IS NULL"
                " ORDER BY begun_at",
                (host,),
            ).fetchall()
        return [_answers.decode(row[0]) for row in rows]

    def _all_unforgotten(self) -> list[Answer]:
        with self._lock:
            rows = self._db.execute(
                "SELECT answer FROM operation WHERE answer IS NOT NULL AND forgotten_at IS NULL ORDER BY begun_at"
            ).fetchall()
        return [_answers.decode(row[0]) for row in rows]

    def _forget(self, operation_ids: tuple[str, ...]) -> None:
        now = self._now()
        with self._lock, self._db:
            self._db.executemany(
                "UPDATE operation SET forgotten_at = coalesce(forgotten_at, ?)"
                " WHERE operation_id = ? AND answer IS NOT NULL",
                [(now, operation_id) for operation_id in operation_ids],
            )
            self._db.execute("DELETE FROM operation WHERE forgotten_at <= ?", (now - self._keep_ms,))

    def _note(self, host: str, name: str, networks: tuple[NetworkRef, ...]) -> None:
        with self._lock, self._db:
            row = self._db.execute("SELECT networks FROM plugged WHERE host = ? AND name = ?", (host, name)).fetchone()
            before = () if row is None else _networks.decode(row[0])
            after = tuple(dict.fromkeys((*before, *networks)))
            if after != before:
                self._db.execute("INSERT OR REPLACE INTO plugged VALUES (?, ?, ?)", (host, name, _encode(after)))

    def _noted(self, host: str, name: str) -> tuple[NetworkRef, ...]:
        row = self._row("SELECT networks FROM plugged WHERE host = ? AND name = ?", (host, name))
        return () if row is None else _networks.decode(row[0])

    def _write(self, statement: str, values: tuple[str | int, ...]) -> None:
        with self._lock, self._db:
            self._db.execute(statement, values)

    def _row(self, statement: str, values: tuple[str, ...]) -> sqlite3.Row | None:
        with self._lock:
            row: sqlite3.Row | None = self._db.execute(statement, values).fetchone()
            return row

    def _now(self) -> int:
        return round(self._wall_clock() * 1000)


def _open(path: Path | None) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(path if path is not None else ":memory:", check_same_thread=False, timeout=10)
    except sqlite3.Error as error:
        raise JournalUnusable(f"journal {path} cannot be opened: {error}") from error
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        elif version != 1:
            raise JournalUnusable(f"journal {path} has version {version}, this agent reads version 1")
    except sqlite3.Error as error:
        db.close()
        raise JournalUnusable(f"journal {path} cannot be used: {error}") from error
    except JournalUnusable:
        db.close()
        raise
    return db
