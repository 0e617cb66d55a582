"""How errors are told: HTTP status is the error code, the envelope is the command's own wherever there is one."""

import re
import uuid

import structlog

from pileus.server.api import render
from pileus.server.api.command import CommandSpec
from pileus.server.api.render import Answer
from pileus.server.domain.errors import InternalError, ParameterError, PileusError, UnsupportedAction

_log = structlog.get_logger(__name__)

NO_COMMAND = "errorresponse"

_CS_CODES = {431: 4350, 531: 4365, 535: 4370}
_OTHER = 9999
_LONGEST_HEADER = 500
_LONGEST_NAME = 80
_NOT_PRINTABLE = re.compile(r"[^\x20-\x7e]+")


class BadRequest(PileusError):
    """A session's call without a command."""

    code = 400


class MethodNotAllowed(PileusError):
    """A login by GET would leave the password in logs and histories."""

    code = 405


class Overloaded(PileusError):
    """More calls are waiting than could be answered in time."""

    code = 503


def envelope(spec: CommandSpec | None, error: PileusError) -> str:
    """The top-level key of an error answer."""
    if spec is None or isinstance(error, UnsupportedAction):
        return NO_COMMAND
    return spec.envelope


def answer(error: PileusError, spec: CommandSpec | None, *, as_json: bool) -> Answer:
    """Render an error."""
    text = _with_parameter(error)
    body = {
        "uuidList": [],
        "errorcode": error.code,
        "cserrorcode": _CS_CODES.get(error.code, _OTHER),
        "errortext": text,
    }
    told = render.envelope(envelope(spec, error), body, as_json=as_json, status=error.code)
    header = _NOT_PRINTABLE.sub(" ", text)[:_LONGEST_HEADER]
    return told.with_header("X-Description", header)


def _with_parameter(error: PileusError) -> str:
    """The text, which always names the parameter it is about."""
    name = error.parameter if isinstance(error, ParameterError) else ""
    if not name or re.search(rf"(?<!\w){re.escape(name)}(?!\w)", error.text, re.IGNORECASE):
        return error.text
    return f"{error.text} (parameter {name[:_LONGEST_NAME]})"


def unexpected(error: Exception, command: str) -> InternalError:
    """Log a fault of ours under a reference and say only that reference to the caller."""
    reference = uuid.uuid4().hex[:12]
    _log.error("a call failed unexpectedly", reference=reference, command=command, exc_info=error)
    return InternalError(f"internal error; the server's log has the details under reference {reference}")
