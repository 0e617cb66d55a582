"""In-process signals about hosts, given after a commit, from any thread. Losing one costs a poll, no operation."""

import threading
from collections.abc import Callable, Mapping
from enum import StrEnum

Listener = Callable[[int], None]
"""Called with an id; it must not block."""


class About(StrEnum):
    """What a signal says; its id is a host's, or a fleet's where that is said."""

    REQUESTED = "requested"
    """An operation waits for the host."""

    REMOVED = "removed"
    """The host may not be connected any more."""

    RECONNECT = "reconnect"
    """The host's line is to end, so that its agent connects anew."""

    WANTED = "wanted"
    """A simulated host has nobody who holds it (0: several have)."""

    FLEET_REMOVED = "fleet-removed"
    """The fleet may not be connected any more."""


_lock = threading.Lock()
_listeners: dict[About, list[Listener]] = {about: [] for about in About}


def announce(about: About, number: int) -> None:
    """Tell whoever listens in this process."""
    with _lock:
        present = list(_listeners[about])
    for listener in present:
        listener(number)


def announce_requested(host_id: int) -> None:
    """An operation waits for this host."""
    announce(About.REQUESTED, host_id)


def announce_removed(host_id: int) -> None:
    """The host may not be connected any more."""
    announce(About.REMOVED, host_id)


def announce_reconnect(host_id: int) -> None:
    """The host's line is to end."""
    announce(About.RECONNECT, host_id)


def announce_wanted(host_id: int) -> None:
    """A simulated host has nobody; 0 when several have."""
    announce(About.WANTED, host_id)


def announce_fleet_removed(fleet_id: int) -> None:
    """The fleet may not be connected any more."""
    announce(About.FLEET_REMOVED, fleet_id)


def listen(listeners: Mapping[About, Listener]) -> Callable[[], None]:
    """Hear of these. Returns what ends it."""
    with _lock:
        for about, listener in listeners.items():
            _listeners[about].append(listener)

    def ignore() -> None:
        with _lock:
            for about, listener in listeners.items():
                _listeners[about].remove(listener)

    return ignore
