"""The API in one process: calls answered by the dispatcher itself, signed as a user or trusted as administrator."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection, event, update

from pileus.server.api.dispatch import Dispatcher
from pileus.server.api.request import Request
from pileus.server.api.signing import sign
from pileus.server.db.tables.account import users
from pileus.server.db.transaction import Database
from pileus.server.domain.caller import Caller
from pileus.server.registered import register_all


class Refused(Exception):
    """The API said no: its error code and text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code
        self.text = text


class Client:
    """Calls commands. Without a caller it is trusted, as the integration port is; with one, its user gets keys.

    `keys` (API key and secret key) are of somebody who has some already.
    """

    def __init__(
        self, database: Database, caller: Caller | None = None, *, keys: tuple[str, str] | None = None
    ) -> None:
        register_all()
        self.database = database
        self._dispatcher = Dispatcher(database, trusted=caller is None and keys is None)
        self._keys = keys
        if caller is not None:
            self._keys = secrets.token_urlsafe(48), secrets.token_urlsafe(48)
            with database.write() as tx:
                tx.execute(
                    update(users)
                    .where(users.c.id == caller.user_id)
                    .values(api_key=self._keys[0], secret_key=self._keys[1])
                )

    @property
    def keys(self) -> tuple[str, str]:
        """API key and secret key of the caller. `LookupError` for the trusted client, which has none."""
        if self._keys is None:
            raise LookupError("a trusted client signs nothing")
        return self._keys

    def call(self, command: str, /, **parameters: object) -> dict[str, Any]:
        """The body of the answer, without its envelope. Raises `Refused`. None is not sent, lists with commas."""
        return self.send({name: _text(value) for name, value in parameters.items() if value is not None}, command)

    def send(self, parameters: Mapping[str, str], command: str) -> dict[str, Any]:
        """A call whose parameters are text already, whatever their names."""
        sent = {**parameters, "command": command, "response": "json"}
        if self._keys is not None:
            sent["apikey"] = self._keys[0]
            sent["signature"] = sign(sent, self._keys[1])
        answer = self._dispatcher.answer(Request("GET", "http", "192.0.2.1", {}, sent))
        (body,) = msgspec.json.decode(answer.body).values()
        if answer.status != 200 or "errorcode" in body:
            raise Refused(int(body["errorcode"]), str(body["errortext"]))
        return dict(body)

    def one(self, command: str, /, **parameters: object) -> dict[str, Any]:
        """The only object in an answer: of a command that makes one, or of a list with one entry."""
        found = [entry for name, entry in self.call(command, **parameters).items() if name != "count"]
        (thing,) = found[0] if len(found) == 1 and isinstance(found[0], list) else found
        return dict(thing)

    def names(self, command: str, /, **parameters: object) -> list[str]:
        """The names of what a list shows, in its order."""
        body = self.call(command, **parameters)
        return [entry["name"] for listed in body.values() if isinstance(listed, list) for entry in listed]


@contextmanager
def counted_statements(database: Database) -> Iterator[list[str]]:
    """Within the block, every statement that reaches the database is appended to the list."""
    seen: list[str] = []

    def before(
        _connection: Connection, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool
    ) -> None:
        seen.append(statement)

    engines = (database.reading, database.writing)
    for engine in engines:
        event.listen(engine, "before_cursor_execute", before)
    try:
        yield seen
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", before)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(str(part) for part in value)
    return str(value)
