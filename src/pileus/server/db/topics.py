"""Parking on a topic against waking it: no wake-up may fall between a step's last look and the commit of its park.

SQLite has one writer at a time, so look and park are one. Elsewhere both sides take the topic's lock first: a waker
that comes second sees the parked row; a parker that comes second looks again, and sees what the waker committed.
"""

import hashlib
import zlib

from sqlalchemy import BigInteger, insert, literal, select
from sqlalchemy import func as sql
from sqlalchemy.exc import IntegrityError

from pileus.server.db.tables.job import topic_lock
from pileus.server.db.transaction import Tx

SLOTS = 256
"""Where locks are rows, topics share this many; sharing one costs a wait, never a wake-up."""


def hold_topics(tx: Tx, *topics: str) -> bool:
    """Hold the topics' locks until the transaction ends. False when the database needs none.

    Locks of one call are taken in one order. Take them before locking rows that a waker of the topic also writes.
    """
    match tx.connection.dialect.name:
        case "sqlite":
            return False
        case "postgresql":
            for key in sorted({_key(topic) for topic in topics}):
                tx.execute(select(sql.pg_advisory_xact_lock(literal(key, BigInteger))))
            return True
    for slot in sorted({zlib.crc32(topic.encode()) % SLOTS for topic in topics}):
        _hold(tx, slot)
    return True


def _key(topic: str) -> int:
    return int.from_bytes(hashlib.blake2b(topic.encode(), digest_size=8).digest(), signed=True)


def _hold(tx: Tx, slot: int) -> None:
    taken = select(topic_lock.c.slot).where(topic_lock.c.slot == slot).with_for_update()
    if tx.scalar(taken) is not None:
        return
    try:
        with tx.connection.begin_nested():
            tx.execute(insert(topic_lock).values(slot=slot, taken=1))
    except IntegrityError:
        tx.scalar(taken)
