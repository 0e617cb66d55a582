"""What the composition root hangs onto host connections. Each runs in the transaction that stores the fact itself."""

from collections.abc import Callable
from dataclasses import dataclass

from pileus.server.db.transaction import Tx
from pileus.server.domain.host import HostState
from pileus.server.hosts.operations import HostOperation
from pileus.wire.messages import Happened, HostIntro, HostStats


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Callbacks:
    """All may be called again for the same fact, and none may wait or talk to a network.

    `on_answer`: an operation was answered for the first time. `on_inventory`: a host connected; what it holds is in
    `holds`. `on_happened`: a guest changed by itself. `on_report`: statistics of a host. `on_state`: a host's state
    changed.
    """

    on_answer: Callable[[Tx, HostOperation], None] = _nothing
    on_inventory: Callable[[Tx, int, HostIntro], None] = _nothing
    on_happened: Callable[[Tx, int, Happened], None] = _nothing
    on_report: Callable[[Tx, int, HostStats], None] = _nothing
    on_state: Callable[[Tx, int, HostState], None] = _nothing
