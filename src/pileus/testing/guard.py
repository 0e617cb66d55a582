"""Trips on a network call made inside a unit of work: a transaction that waits for a peer blocks everybody."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pileus.server.db.transaction import inside_transaction


class NetworkInTransaction(AssertionError):
    """A socket was connected or used to look up a name while a unit of work was open in the same thread."""


def _databases_own(address: Any) -> bool:
    return isinstance(address, str | bytes)


@contextmanager
def no_network_in_transactions() -> Iterator[None]:
    """Within the block, connecting inside a transaction raises. Local sockets of a database client are let through."""
    connect, connect_ex, lookup = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _trip(f"connect to {address}", allowed=_databases_own(address))
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _trip(f"connect to {address}", allowed=_databases_own(address))
        return connect_ex(self, address)

    def guarded_lookup(host: Any, *arguments: Any, **options: Any) -> Any:
        _trip(f"look up {host}", allowed=host is None)
        return lookup(host, *arguments, **options)

    guards = {"connect": guarded_connect, "connect_ex": guarded_connect_ex}
    for name, guard in guards.items():
        setattr(socket.socket, name, guard)
    socket.getaddrinfo = guarded_lookup
    try:
        yield
    finally:
        for name in guards:
            # What was found there before is inherited from the C socket: taking ours away uncovers it.
            delattr(socket.socket, name)
        socket.getaddrinfo = lookup


def _trip(what: str, *, allowed: bool) -> None:
    if not allowed and inside_transaction():
        raise NetworkInTransaction(f"tried to {what} inside a transaction")
