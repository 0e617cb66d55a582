"""`/healthz` before the API: 200 when the database answers, 503 with the reason when it does not."""

import asyncio

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from pileus.server.api.app import App
from pileus.server.api.render import Answer
from pileus.server.api.request import Receive, Scope, Send, tell
from pileus.server.db.tables.account import domain
from pileus.server.db.transaction import Database
from pileus.server.domain.account import ROOT_DOMAIN


class Health:
    """Answers `/healthz` and passes everything else on to the API."""

    def __init__(self, database: Database, app: App) -> None:
        self._database = database
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http" and scope["path"] == "/healthz":
            await tell(send, await asyncio.to_thread(self._look))
        else:
            await self._app(scope, receive, send)

    def _look(self) -> Answer:
        try:
            with self._database.read() as tx:
                there = tx.scalar(select(domain.c.id).where(domain.c.id == ROOT_DOMAIN))
        except SQLAlchemyError as error:
            return Answer(503, f"database: {type(error).__name__}\n".encode(), "text/plain; charset=UTF-8")
        if there is None:
            return Answer(503, b"database: empty\n", "text/plain; charset=UTF-8")
        return Answer(200, b"ok\n", "text/plain; charset=UTF-8")
