"""From a request to its answer: find the command, read plain values, let the caller in, resolve ids, run, render.

Runs in a thread of its own, one unit of work per call; a call that writes is let in before it takes the writer's place.
"""

from contextlib import AbstractContextManager

import structlog

from pileus.server import config
from pileus.server.api import errors, parse, render, sessions
from pileus.server.api.command import Call, CommandSpec, Page, registry
from pileus.server.api.render import Answer, Result
from pileus.server.api.request import Request
from pileus.server.api.sessions import COOKIE, Entry
from pileus.server.auth.authenticators import names
from pileus.server.config import keys
from pileus.server.db.conflict import retried
from pileus.server.db.transaction import Database, Tx
from pileus.server.domain.caller import Caller, root_caller
from pileus.server.domain.errors import (
    InsufficientCapacity,
    LimitExceeded,
    PileusError,
    ResourceInUse,
    ResourceUnavailable,
    RuleConflict,
    Unauthorized,
    UnsupportedAction,
)
from pileus.server.meter import Counter, Histogram, seconds
from pileus.server.services import event, job, session
from pileus.server.services.columns import Columns

_log = structlog.get_logger(__name__)

CALLS = Counter("pileus_api_calls_total", "Answered calls by command and HTTP status", "command", "code")
CALL_SECONDS = Histogram("pileus_api_call_seconds", "From the start of a call's work to its answer", "command")
NO_COMMAND = "none"
"""Label of calls that name no command there is."""

_MOST_NAMES = 20

_FAILURES = (InsufficientCapacity, LimitExceeded, ResourceInUse, ResourceUnavailable, RuleConflict)
"""A call that was right and could not be carried out: that is an event of the caller's account."""


class Dispatcher:
    """Answers calls. `trusted` is the integration port: no authentication, the caller is the root administrator."""

    def __init__(self, database: Database, *, trusted: bool = False) -> None:
        self.database = database
        self.trusted = trusted

    def answer(self, request: Request) -> Answer:
        """The answer to any request; never raises. Every line that is written meanwhile bears the request's id."""
        with structlog.contextvars.bound_contextvars(request=request.id):
            return self._answered(request)

    def _answered(self, request: Request) -> Answer:
        started = seconds()
        name = request.value("command")
        spec = registry.get(name)
        try:
            answer = self._answer(request, name, spec)
        except session.BrokenSession as error:
            self._end_session(request)
            answer = errors.answer(error, spec, as_json=request.as_json)
        except PileusError as error:
            answer = errors.answer(error, spec, as_json=request.as_json)
        except Exception as error:
            answer = errors.answer(errors.unexpected(error, name[:100]), spec, as_json=request.as_json)
        took = seconds() - started
        label = spec.name if spec else NO_COMMAND
        CALLS.add(label, str(answer.status))
        CALL_SECONDS.observe(took, label)
        _log.info(
            "call",
            command=spec.name if spec else None,
            status=answer.status,
            peer=request.peer,
            milliseconds=round(took * 1000, 1),
        )
        return answer

    def _answer(self, request: Request, name: str, spec: CommandSpec | None) -> Answer:
        if not request.sent:
            raise UnsupportedAction("no command was given")
        if spec is not None and spec.public:
            return self._public(request, spec)
        if spec is None:
            raise self._no_such(request, name)
        if strangers := parse.unknown(spec, request.sent):
            _log.warning("unknown parameters", command=name, names=[s[:40] for s in strangers[:_MOST_NAMES]])
        try:
            prepared = parse.prepare(spec, request.sent)
        except PileusError as error:
            # What is wrong with a call is told only to those who may make it.
            with self.database.read() as tx:
                self._permitted(tx, request, spec)
            raise error from None
        known: Entry | None = None
        if not spec.reads or prepared.has_passwords:
            with self.database.read() as tx:
                known = self._permitted(tx, request, spec)
                md5 = prepared.has_passwords and "md5" in names(config.value(tx, keys.user_authenticators_order))
            if prepared.has_passwords:
                prepared = parse.hash_passwords(prepared, md5=md5)
        # Whoever loses a conflict with another call is not told of it: the call is made again.
        try:
            answer, entry = retried(lambda: self._once(request, name, spec, prepared, known))
        except _FAILURES as error:
            if known is not None and spec.emits:
                self._tell_failure(known.caller, spec, error)
            raise
        if spec.reads:
            # What is told must not be lost: SQLite shows commits that are still on their way to the disk.
            self.database.settled()
        if entry.stale:
            self.database.run(lambda tx: session.touch(tx, request.cookie(COOKIE)))
        return answer

    def _once(
        self, request: Request, name: str, spec: CommandSpec, prepared: parse.Prepared, known: Entry | None
    ) -> tuple[Answer, Entry]:
        with self._unit(spec) as tx:
            entry = known or self._permitted(tx, request, spec)
            command = parse.resolve(prepared, tx, entry.caller)
            result = command.run(Call(tx, entry.caller, name, sessions.client_of(tx, request)))
            answer = render.answer(
                spec, result, as_json=request.as_json, pending=_pending(tx, entry.caller, spec, result)
            )
        return answer, entry

    def _tell_failure(self, caller: Caller, spec: CommandSpec, error: PileusError) -> None:
        self.database.run(lambda tx: event.failed(tx, caller, spec.emits[0], f"{spec.name}: {error.text}"))

    def _unit(self, spec: CommandSpec) -> AbstractContextManager[Tx]:
        return self.database.read() if spec.reads else self.database.write()

    def _permitted(self, tx: Tx, request: Request, spec: CommandSpec) -> Entry:
        entry = self._entry(tx, request)
        if entry.caller.role in spec.roles:
            return entry
        raise _unavailable(entry, spec.name)

    def _entry(self, tx: Tx, request: Request) -> Entry:
        if not self.trusted:
            return sessions.authenticate(tx, request)
        # Browsers name the site that made them call; no site has business at this port.
        if request.headers.get("origin") or request.headers.get("sec-fetch-site", "none") not in (
            "none",
            "same-origin",
        ):
            raise Unauthorized
        return Entry(root_caller(), by_session=True)

    def _no_such(self, request: Request, name: str) -> PileusError:
        with self.database.read() as tx:
            entry = self._entry(tx, request)
        if name:
            return _unavailable(entry, name)
        if entry.by_session and not self.trusted:
            return errors.BadRequest("no command was given")
        return UnsupportedAction("no command was given")

    def _public(self, request: Request, spec: CommandSpec) -> Answer:
        if self.trusted:
            raise UnsupportedAction(f"{spec.name} has no meaning at a port without authentication")
        prepared = parse.prepare(spec, request.sent)
        command = spec.params(**prepared.values)
        told = command.serve(self.database, request)  # type: ignore[attr-defined]
        answer = render.answer(spec, told.view, as_json=request.as_json)
        for header, value in told.headers:
            answer = answer.with_header(header, value)
        return answer

    def _end_session(self, request: Request) -> None:
        self.database.run(lambda tx: session.logout(tx, request.cookie(COOKIE)))


def _pending(tx: Tx, caller: Caller, spec: CommandSpec, result: Result) -> dict[str, str]:
    """Open jobs of the objects on a page, by the UUIDs of these."""
    kind = spec.returns.kind
    if not isinstance(result, Page) or kind is None:
        return {}
    views = result.views
    if isinstance(views, Columns):
        found = job.pending_by_key(tx, caller, kind, views.keys)
        if not found:
            return {}
        return {uuid: found[key] for key, uuid in zip(views.keys, views.fields["id"], strict=True) if key in found}
    uuids = [str(view["id"]) for view in views if view.get("id")]
    return job.pending_of(tx, caller, kind, uuids) if uuids else {}


def _unavailable(entry: Entry, name: str) -> PileusError:
    text = f"The given command {name[:100]!r} does not exist or is not available to you"
    return UnsupportedAction(text) if entry.by_session else Unauthorized(text)
