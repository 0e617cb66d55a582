"""Structured logs: JSON lines, the job's UUID in every line of a job, secrets never."""

import json
import logging
import sys
from datetime import UTC, datetime

import structlog

from pileus.server.redaction import redact


def log_as_json() -> None:
    """Write JSON lines to standard output, warnings of libraries included."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_LibraryLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _LibraryLines(logging.Formatter):
    """Lines of libraries in the same form as ours."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"event": record.getMessage(), "level": record.levelname.lower(), "logger": record.name}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        line["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        return json.dumps(redact(None, "", line), default=str)
