"""`/metrics` before everything else at the API's door, for peers of the configured networks and nobody else.

The numbers name no tenant, but tell how big the cloud is and how busy. Who is not meant to read them is told what is
told of any path that is not there. A request that says it was passed on (X-Forwarded-For and its like) comes from
nobody whose address we know: a proxy on this machine must not open to the world what is open to this machine.
"""

import asyncio
import importlib
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from pileus.server.api.render import Answer
from pileus.server.api.request import Receive, Scope, Send, tell
from pileus.server.db.transaction import Database

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PASSED_ON = frozenset({b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"forwarded", b"via"})

_NOTHING = Answer(404, b"there is nothing here; the API is at /client/api\n", "text/plain; charset=UTF-8")
_READ_ONLY = Answer(405, b"GET is answered here\n", "text/plain; charset=UTF-8")


class Metrics:
    """Answers `/metrics` and passes everything else on to `app`. `live` reads gauges of this process by name."""

    def __init__(
        self,
        app: Any,
        database: Database,
        *,
        peers: Sequence[IPv4Network | IPv6Network],
        live: Mapping[str, Callable[[], int]],
    ) -> None:
        self._app = app
        self._database = database
        self._peers = tuple(peers)
        self._live = live
        self._page: Callable[[], bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http" or scope["path"] != "/metrics":
            await self._app(scope, receive, send)
        elif not self._may_read(scope):
            await tell(send, _NOTHING)
        elif scope["method"] not in ("GET", "HEAD"):
            await tell(send, _READ_ONLY)
        else:
            await tell(send, Answer(200, await asyncio.to_thread(self._render), CONTENT_TYPE))

    def _may_read(self, scope: Scope) -> bool:
        if any(name.lower() in PASSED_ON for name, _ in scope["headers"]):
            return False
        try:
            peer = ip_address((scope.get("client") or ("",))[0])
        except ValueError:
            return False
        if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self._peers)

    def _render(self) -> bytes:
        if self._page is None:
            # Loaded here on purpose, see there.
            exposition = importlib.import_module("pileus.server.exposition")
            self._page = exposition.Exposition(self._database, self._live).page
        return self._page()
