"""The HTTP doors, as ASGI applications: the query API, and the port without authentication for integration."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import structlog

from pileus.server.api import catalogue, errors, parse
from pileus.server.api.command import registry
from pileus.server.api.dispatch import CALLS, NO_COMMAND, Dispatcher
from pileus.server.api.errors import MethodNotAllowed, Overloaded
from pileus.server.api.render import JSON_TYPE, Answer
from pileus.server.api.request import Receive, Request, Scope, Send, body, decode, request, request_id, tell
from pileus.server.db.transaction import Database
from pileus.server.domain.errors import PileusError

PATH = "/client/api"

_log = structlog.get_logger(__name__)

_NOT_FOUND = Answer(404, b"there is nothing here; the API is at /client/api\n", "text/plain; charset=UTF-8")
_WELCOME = Answer(200, b"Pileus. The API is at /client/api, its description at /openapi.json\n", "text/plain")


class App:
    """The query API. One thread hop per call, through pools of bounded size and queue.

    Calls with passwords have a small pool of their own: hashing is slow on purpose and must not hold up the rest.
    """

    def __init__(self, database: Database, *, threads: int = 4, waiting: int = 1000) -> None:
        self._dispatcher = Dispatcher(database)
        self._quick = Pool("api", threads, waiting)
        self._slow = Pool("api-password", 2, 64)
        self._document: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send, self.close)
        elif scope["type"] == "http":
            await _tell(send, scope, await self._serve(scope, receive))

    def close(self) -> None:
        """Let running calls end and stop the threads."""
        self._quick.close()
        self._slow.close()

    async def _serve(self, scope: Scope, receive: Receive) -> Answer:
        path = scope["path"].rstrip("/")
        if path == PATH or path.startswith(PATH + "/"):
            return await self._call(scope, receive, path[len(PATH) + 1 :])
        if path == "/openapi.json":
            if self._document is None:
                self._document = msgspec.json.encode(catalogue.openapi(registry.values()))
            return Answer(200, self._document, JSON_TYPE)
        return _WELCOME if path == "" else _NOT_FOUND

    async def _call(self, scope: Scope, receive: Receive, name: str) -> Answer:
        try:
            sent = decode(scope["query_string"], await body(scope, receive))
            if scope["method"] not in ("GET", "POST"):
                raise MethodNotAllowed("the API answers GET and POST")
        except PileusError as error:
            return _refusal(scope, error)
        if name and not any(known.lower() == "command" for known in sent):
            # As any parameter, it is part of what is signed.
            sent["command"] = name
        made = request(scope, sent)
        pool = self._slow if _is_slow(made) else self._quick
        return await pool.run(self._dispatcher, made)


class IntegrationApp:
    """The port without authentication: any path, caller is the root administrator. Who reaches it, rules the cloud."""

    def __init__(self, database: Database, *, threads: int = 2, waiting: int = 100) -> None:
        self._dispatcher = Dispatcher(database, trusted=True)
        self._pool = Pool("integration", threads, waiting)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await lifespan(receive, send, self.close)
        elif scope["type"] == "http":
            await _tell(send, scope, await self._serve(scope, receive))

    def close(self) -> None:
        """Let running calls end and stop the threads."""
        self._pool.close()

    async def _serve(self, scope: Scope, receive: Receive) -> Answer:
        try:
            sent = decode(scope["query_string"], await body(scope, receive), bare_names=False)
            if scope["method"] not in ("GET", "POST"):
                raise MethodNotAllowed("the API answers GET and POST")
        except PileusError as error:
            return _refusal(scope, error)
        return await self._pool.run(self._dispatcher, request(scope, sent))


async def _tell(send: Send, scope: Scope, answer: Answer) -> None:
    await tell(send, answer.with_header("X-Request-Id", request_id(scope)))


def _refusal(scope: Scope, error: PileusError) -> Answer:
    """The answer to what cannot be read as a call at all."""
    CALLS.add(NO_COMMAND, str(error.code))
    _log.info("call refused", status=error.code, request=request_id(scope))
    return errors.answer(error, None, as_json=b"response=json" in scope["query_string"])


class Pool:
    """Threads that answer calls, with a bounded queue: who would wait too long is told so at once."""

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._room = threads + waiting
        self._inside = 0

    async def run(self, dispatcher: Dispatcher, made: Request) -> Answer:
        """Answer a call in a thread; 503 when the queue is full. Only called from the event loop's thread."""
        if self._inside >= self._room:
            error = Overloaded("the server is busy; try again")
            spec = registry.get(made.value("command"))
            CALLS.add(spec.name if spec else NO_COMMAND, str(error.code))
            _log.warning("call refused", status=error.code, command=spec.name if spec else None, request=made.id)
            return errors.answer(error, spec, as_json=made.as_json)
        self._inside += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, dispatcher.answer, made)
        finally:
            self._inside -= 1

    def close(self) -> None:
        """Stop the threads once they are idle."""
        self._executor.shutdown(wait=True)


def create_app(database: Database, *, threads: int = 4) -> App:
    """The query API over a database. Importing the command modules fills the registry it serves."""
    return App(database, threads=threads)


def create_integration_app(database: Database) -> IntegrationApp:
    """The integration port's application; whether a socket is opened for it is not decided here."""
    return IntegrationApp(database)


async def lifespan(receive: Receive, send: Send, close: Callable[[], None]) -> None:
    """Answer the server's start and stop."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            close()
            await send({"type": "lifespan.shutdown.complete"})
            return


def _is_slow(made: Request) -> bool:
    spec = registry.get(made.value("command"))
    return spec is not None and (spec.public or any(field.is_password for field in parse.table(spec.params)))
