"""Structured logs: JSON lines, the job's UUID in every line of a job, secrets never."""

import logging
import sys

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
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout, format='{"level": "warning", "event": "%(message)s"}')
