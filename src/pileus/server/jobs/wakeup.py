"""The in-process signal that something is runnable. Losing one costs a short poll, never a job."""

import threading
from collections.abc import Callable

_listeners: list[Callable[[], None]] = []
_lock = threading.Lock()


def announce() -> None:
    """Tell every worker pool of this process that a job may be runnable."""
    with _lock:
        listeners = list(_listeners)
    for listener in listeners:
        listener()


def listen(listener: Callable[[], None]) -> None:
    """Call `listener` (from any thread; it must not block) on every announcement."""
    with _lock:
        _listeners.append(listener)


def ignore(listener: Callable[[], None]) -> None:
    """Stop calling `listener`."""
    with _lock:
        _listeners.remove(listener)
