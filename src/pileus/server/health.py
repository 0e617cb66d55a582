"""`/healthz` before the API: 200 while this server serves, 503 with what is wrong when it does not.

Whoever shares calls among servers asks here, so a server that is about to stop says so before it shuts its door:
from `drain` on the answer is 503, while the API behind it still answers whatever comes. Each answer then ends its
connection, so that whoever keeps one goes elsewhere before the door shuts on a call.
"""

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from pileus.server.api.app import App
from pileus.server.api.render import Answer
from pileus.server.api.request import Receive, Scope, Send, tell
from pileus.server.db.tables.account import domain
from pileus.server.db.transaction import Database
from pileus.server.domain.account import ROOT_DOMAIN

Check = Callable[[], str]
"""Says what is wrong, in a few words, or "". It must not block: it runs in the event loop."""

PATIENCE_SECONDS = 5.0
"""A database that takes longer to answer is as good as none."""


class Health:
    """Answers `/healthz` and passes everything else on to the API. `checks` by the name they are told under."""

    def __init__(self, database: Database, app: App, checks: Mapping[str, Check] | None = None) -> None:
        self._database = database
        self._app = app
        self._checks = dict(checks or {})
        self._look: asyncio.Task[str] | None = None
        self._draining = False
        self._inside: set[object] = set()
        self._finished = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if self._draining and scope["type"] == "http":
            send = _closing(send)
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/healthz":
            await tell(send, await self._answer())
        else:
            await self._pass_on(scope, receive, send)

    @property
    def calls(self) -> int:
        """How many calls are being answered now."""
        return len(self._inside)

    def drain(self) -> None:
        """Say 503 from now on. Called in the event loop."""
        self._draining = True

    async def drained(self, *, at_least: float, at_most: float) -> None:
        """Wait for the calls that are being answered now, `at_most` seconds, and in any case `at_least` seconds.

        Those that come meanwhile are answered too, but not waited for: a busy server would never stop.
        """
        begun = set(self._inside)

        async def ended() -> None:
            while begun & self._inside:
                self._finished.clear()
                await self._finished.wait()

        await asyncio.gather(asyncio.wait_for(ended(), at_most), asyncio.sleep(at_least), return_exceptions=True)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = object()
        self._inside.add(call)
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside.discard(call)
            self._finished.set()

    async def _answer(self) -> Answer:
        if self._draining:
            return _plain(503, "draining: this server is about to stop")
        if self._look is None or self._look.done():
            # All who ask while a look is under way share it: nobody can make the database busy with this.
            self._look = asyncio.create_task(self._looked())
        try:
            trouble = await asyncio.wait_for(asyncio.shield(self._look), PATIENCE_SECONDS)
        except TimeoutError:
            trouble = f"database: no answer within {PATIENCE_SECONDS:g} s"
        wrong = [trouble, *(f"{name}: {said}" for name, check in self._checks.items() if (said := check()))]
        wrong = [line for line in wrong if line]
        return _plain(503, "\n".join(wrong)) if wrong else _plain(200, "ok")

    async def _looked(self) -> str:
        return await asyncio.to_thread(self._database_trouble)

    def _database_trouble(self) -> str:
        try:
            with self._database.read() as tx:
                there = tx.scalar(select(domain.c.id).where(domain.c.id == ROOT_DOMAIN))
        except SQLAlchemyError as error:
            return f"database: {type(error).__name__}"
        return "database: empty" if there is None else ""


def _plain(status: int, text: str) -> Answer:
    return Answer(status, f"{text}\n".encode(), "text/plain; charset=UTF-8")


def _closing(send: Send) -> Send:
    async def closing(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return closing
