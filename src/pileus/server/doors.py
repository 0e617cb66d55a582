"""HTTP sockets: bound first, so that a taken port is told before anything runs, then served by uvicorn."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

ANSWER_SECONDS = 10
"""How long calls in flight may take to be answered once the door closes."""


class Door:
    """One listening socket and the ASGI application behind it. Port 0 takes any free one."""

    def __init__(self, app: Any, address: str, port: int) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._socket = socket.create_server((address, port), family=family, backlog=2048)
        # Inherited by its connections, where asyncio sees no TCP socket to set it on. An answer's second packet would
        # wait 40 ms for the caller to acknowledge the first.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._serving = False
        self.address = address
        self.port = int(self._socket.getsockname()[1])
        self._server = _Uvicorn(
            uvicorn.Config(
                app,
                # Neither is looked for, nor loaded: calls come by plain HTTP, and nothing upgrades.
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=ANSWER_SECONDS,
            )
        )

    async def serve(self) -> None:
        """Serve until `close`."""
        self._serving = True
        await self._server.serve(sockets=[self._socket])

    def close(self) -> None:
        """Take no more connections, end those there are, and let `serve` return."""
        self._server.should_exit = True
        # While it serves, the socket belongs to uvicorn, which stops reading from it before it closes it.
        if not self._serving:
            self._socket.close()


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the composition root."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
