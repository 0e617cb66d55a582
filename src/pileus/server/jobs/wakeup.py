"""The in-process signal that something is runnable. Losing one costs a short poll, never a job."""

import threading
from collections.abc import Callable

JOBS = "jobs"
RECONCILERS = "reconcilers"

_listeners: list[tuple[str, Callable[[], None]]] = []
_lock = threading.Lock()


def announce(kind: str = JOBS) -> None:
    """Tell every worker pool of this process that a job (or a reconciler) may be runnable."""
    with _lock:
        listeners = [listener for wanted, listener in _listeners if wanted == kind]
    for listener in listeners:
        listener()


def announce_reconcilers() -> None:
    """Tell this process that a reconciler was triggered."""
    announce(RECONCILERS)


def listen(listener: Callable[[], None], kind: str = JOBS) -> None:
    """Call `listener` (from any thread; it must not block) on every announcement of the kind."""
    with _lock:
        _listeners.append((kind, listener))


def ignore(listener: Callable[[], None], kind: str = JOBS) -> None:
    """Stop calling `listener`."""
    with _lock:
        _listeners.remove((kind, listener))
