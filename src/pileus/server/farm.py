"""What the servers of a farm tell each other: the signals of one process, carried to the others by `db.notices`.

Whoever signals knows nothing of it. On databases without notices every server finds out by its polls.
"""

from collections.abc import Callable

from pileus.server.db.notices import Notices
from pileus.server.db.transaction import Database
from pileus.server.hosts import signal
from pileus.server.jobs import wakeup

_KINDS = (wakeup.JOBS, wakeup.RECONCILERS)
_ABOUT_HOSTS = frozenset(signal.About)


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
        self._ignore_hosts = signal.listen({about: self._host_teller(about) for about in signal.About})

    def stop(self) -> bool:
        """Fall silent. False when it took too long."""
        for kind, teller in self._tellers.items():
            wakeup.ignore(teller, kind)
        if self._ignore_hosts is not None:
            self._ignore_hosts()
        return self.notices.stop()

    def _teller(self, kind: str) -> Callable[[], None]:
        return lambda: self.notices.send(kind)

    def _host_teller(self, about: signal.About) -> signal.Listener:
        return lambda number: self.notices.send(f"{about}:{number}")

    def _heard(self, notice: str) -> None:
        what, _, number = notice.partition(":")
        if what in _KINDS:
            wakeup.announce(what)
        elif what in _ABOUT_HOSTS and number.isdecimal():
            signal.announce(signal.About(what), int(number))
