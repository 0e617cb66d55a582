"""What the composition root hangs onto host connections. Each runs in the transaction that stores the fact itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pileus.server.db.transaction import Tx
from pileus.server.hosts.liveness import Change
from pileus.server.hosts.operations import HostOperation
from pileus.wire.messages import Happened, HostIntro, HostStats


def _nothing(*_: object) -> None:
    return None


@dataclass(frozen=True)
class Callbacks:
    """All may be called again for the same fact, and none may wait or talk to a network.

    `on_answer`: an operation was answered for the first time. `on_inventory`: hosts (by id) connected; what each holds
    is in `holds`. `on_happened`: a guest changed by itself. `on_report`: statistics of hosts. `on_state`: states of
    hosts changed. Those that take many hosts get at most some hundreds at once.
    """

    on_answer: Callable[[Tx, HostOperation], None] = _nothing
    on_inventory: Callable[[Tx, Sequence[tuple[int, HostIntro]]], None] = _nothing
    on_happened: Callable[[Tx, int, Happened], None] = _nothing
    on_report: Callable[[Tx, Sequence[tuple[int, HostStats]]], None] = _nothing
    on_state: Callable[[Tx, Sequence[Change]], None] = _nothing
