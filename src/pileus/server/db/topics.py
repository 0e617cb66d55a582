"""Parking on a topic against waking it: no wake-up may fall between a step's last look and the commit of its park.

SQLite has one writer at a time, so look and park are one. Elsewhere both sides take the topic's lock first: a waker
that comes second sees the parked row; a parker that comes second looks again, and sees what the waker committed.
"""

import zlib

from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from pileus.server.db.tables.job import topic_lock
from pileus.server.db.transaction import Tx

SLOTS = 256
"""Topics share this many locks; sharing one costs a wait, never a wake-up."""


def hold_topics(tx: Tx, *topics: str) -> bool:
    """Hold the topics' locks until the transaction ends. False when the database needs none.

    Locks of one call are taken in one order. Take them before locking rows that a waker of the topic also writes.
    """
    if tx.connection.dialect.name == "sqlite":
        return False
    for slot in sorted({zlib.crc32(topic.encode()) % SLOTS for topic in topics}):
        _hold(tx, slot)
    return True


def _hold(tx: Tx, slot: int) -> None:
    taken = update(topic_lock).where(topic_lock.c.slot == slot).values(taken=topic_lock.c.taken + 1)
    if tx.execute(taken).rowcount:
        return
    try:
        with tx.connection.begin_nested():
            tx.execute(insert(topic_lock).values(slot=slot, taken=1))
    except IntegrityError:
        tx.execute(taken)
