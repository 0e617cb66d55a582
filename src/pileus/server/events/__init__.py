"""Events: written in the transaction of the change they tell of. Guide: "Event Logs"."""

from pileus.server.events import types
from pileus.server.events.write import job_ended, job_failed, job_started, record, record_by

__all__ = ["job_ended", "job_failed", "job_started", "record", "record_by", "types"]
