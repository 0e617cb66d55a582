"""In-process signals about hosts, given after a commit, from any thread. Losing one costs a poll, no operation."""

import threading
from collections.abc import Callable

Listener = Callable[[int], None]
"""Called with a host id; it must not block."""

_lock = threading.Lock()
_requested: list[Listener] = []
_removed: list[Listener] = []


def announce_requested(host_id: int) -> None:
    """An operation waits for this host."""
    _tell(_requested, host_id)


def announce_removed(host_id: int) -> None:
    """The host may not be connected any more."""
    _tell(_removed, host_id)


def listen(*, requested: Listener, removed: Listener) -> Callable[[], None]:
    """Hear of both kinds. Returns what ends it."""
    with _lock:
        _requested.append(requested)
        _removed.append(removed)

    def ignore() -> None:
        with _lock:
            _requested.remove(requested)
            _removed.remove(removed)

    return ignore


def _tell(listeners: list[Listener], host_id: int) -> None:
    with _lock:
        present = list(listeners)
    for listener in present:
        listener(host_id)
