"""What the servers of a farm tell each other: the signals of one process, carried to the others by `db.notices`.

Whoever signals knows nothing of it. On databases without notices every server finds out by its polls.
"""

from collections.abc import Callable

from pileus.server.db.notices import Notices
from pileus.server.db.transaction import Database
from pileus.server.hosts import signal
from pileus.server.jobs import wakeup

_KINDS = (wakeup.JOBS, wakeup.RECONCILERS)
_REQUESTED, _REMOVED = "requested", "removed"


class Farm:
    """This server's part in it."""

    def __init__(self, database: Database) -> None:
        self.notices = Notices(database, self._heard)
        self._tellers = {kind: self._teller(kind) for kind in _KINDS}
        self._ignore_hosts: Callable[[], None] | None = None

    def start(self) -> None:
        """Tell and hear from now on."""
        self.notices.start()
        for kind, teller in self._tellers.items():
            wakeup.listen(teller, kind)
        self._ignore_hosts = signal.listen(
            requested=lambda host_id: self.notices.send(f"{_REQUESTED}:{host_id}"),
            removed=lambda host_id: self.notices.send(f"{_REMOVED}:{host_id}"),
        )

    def stop(self) -> bool:
        """Fall silent. False when it took too long."""
        for kind, teller in self._tellers.items():
            wakeup.ignore(teller, kind)
        if self._ignore_hosts is not None:
            self._ignore_hosts()
        return self.notices.stop()

    def _teller(self, kind: str) -> Callable[[], None]:
        return lambda: self.notices.send(kind)

    def _heard(self, notice: str) -> None:
        what, _, host_id = notice.partition(":")
        if what in _KINDS:
            wakeup.announce(what)
        elif what == _REQUESTED and host_id.isdecimal():
            signal.announce_requested(int(host_id))
        elif what == _REMOVED and host_id.isdecimal():
            signal.announce_removed(int(host_id))
