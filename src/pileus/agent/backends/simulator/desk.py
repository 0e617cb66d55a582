"""Where a running fleet is told what is to go wrong: files that are dropped into a directory."""

from collections.abc import Callable
from pathlib import Path

import structlog

from pileus.agent.backends.simulator.faults import Clock
from pileus.wire.orders import BadOrders, Orders, read_orders

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0


class Desk:
    """Reads what is dropped into a directory, once each, and removes it. A file of another form is kept as `.bad`."""

    def __init__(self, directory: Path, clock: Clock, take: Callable[[Orders], None]) -> None:
        self._directory = directory
        self._clock = clock
        self._take = take

    async def run(self) -> None:
        """Never ends."""
        while True:
            self.look()
            await self._clock.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take what is there now."""
        try:
            files = sorted(self._directory.glob("*.toml"))
        except OSError:
            return
        for file in files:
            try:
                orders = read_orders(file.read_text())
                file.unlink()
            except (BadOrders, UnicodeDecodeError) as error:
                log.error("orders.bad", file=file.name, reason=str(error))
                file.replace(file.with_suffix(".bad"))
            except OSError as error:
                log.error("orders.unread", file=file.name, reason=str(error))
            else:
                self._take(orders)
