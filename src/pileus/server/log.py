"""Structured logs: one line per event, the job's UUID in every line of a job, the call's id in every line of a call.

Lines of libraries come the same way, from warnings on. Secrets are hidden last, whoever wrote the line.
"""

import json
import logging
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any

import structlog

from pileus.server.meter import Counter
from pileus.server.redaction import redact

LINES = Counter("pileus_log_lines_total", "Lines written to the log by level", "level")

_LEVELS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()}
_FIRST = ("timestamp", "level", "event")


def write_lines(*, level: str = "info", form: str = "json") -> None:
    """Write lines to standard output from `level` on (debug, info, warning, error); `form` is json or text."""
    render = _text if form == "text" else structlog.processors.JSONRenderer(default=repr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _count,
            redact,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_LibraryLines(form))
    logging.basicConfig(level=max(logging.WARNING, _LEVELS[level]), handlers=[handler], force=True)


def _count(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    LINES.add(str(line.get("level", "")))
    return line


def _text(_logger: object, _method: str, line: MutableMapping[str, Any]) -> str:
    """For eyes: time, level, event, then the rest. Never more than one line, so that nobody can forge another."""
    rest = (f"{name}={json.dumps(value, default=repr)}" for name, value in line.items() if name not in _FIRST)
    event = json.dumps(str(line.get("event", "")))[1:-1]
    return " ".join([str(line.get("timestamp", "")), f"{line.get('level', ''):<7}", event, *rest])


class _LibraryLines(logging.Formatter):
    """Lines of libraries in the same form as ours, with the job or call in whose thread they were written."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            **structlog.contextvars.get_contextvars(),
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        hidden = redact(None, "", _count(None, "", line))
        return _text(None, "", hidden) if self._form == "text" else json.dumps(hidden, default=repr)
