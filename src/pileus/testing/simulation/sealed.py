"""A run that chance cannot reach: names come from the seed, and what is logged as an error is kept.

Within the block nothing else of the process may make names or log: one thread, one run.
"""

import gc
import random
import secrets
import sys
import traceback
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import structlog
from argon2 import PasswordHasher

from pileus.agent.backend import Refused
from pileus.server.auth import passwords
from pileus.server.domain import ssh_key
from pileus.server.domain.errors import PileusError
from pileus.testing.simulation.chronicle import Chronicle
from pileus.testing.simulation.credentials import key_pair

_ALLOCATIONS = 100_000

_CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@contextmanager
def sealed(seed: int | str) -> Iterator[None]:
    """UUIDs and secrets follow from the seed; passwords are hashed for real, but cheaply; key pairs are one."""
    dice = random.Random(f"names {seed}")  # noqa: S311 (names in a simulation are no secrets)
    thresholds = gc.get_threshold()
    # Building statements makes much garbage that dies young: looking for cycles so often is a tenth of a run.
    gc.set_threshold(_ALLOCATIONS, *thresholds[1:])
    try:
        with (
            _instead(uuid, "uuid4", lambda: uuid.UUID(int=dice.getrandbits(128), version=4)),
            _instead(secrets, "choice", dice.choice),
            _instead(secrets, "token_hex", lambda n=32: dice.randbytes(n).hex()),
            _instead(secrets, "token_urlsafe", lambda n=32: urlsafe_b64encode(dice.randbytes(n)).rstrip(b"=").decode()),
            _instead(passwords, "_hasher", _CHEAP),
            _instead(ssh_key, "generate", key_pair),
        ):
            yield
    finally:
        gc.set_threshold(*thresholds)


@contextmanager
def _instead(owner: ModuleType, name: str, another: Any) -> Iterator[None]:
    real = getattr(owner, name)
    setattr(owner, name, another)
    try:
        yield
    finally:
        setattr(owner, name, real)


@contextmanager
def overheard(chronicle: Chronicle) -> Iterator[None]:
    """Every exception that is logged as an error becomes a bug of the chronicle, unless somebody foresaw it."""

    def listen(_logger: Any, name: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        error = entry.get("exc_info")
        if error is True:
            error = _current()
        if name in ("error", "exception") and isinstance(error, BaseException) and not foreseen(error):
            chronicle.bug("".join(traceback.format_exception(error)))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[listen], wrapper_class=structlog.stdlib.BoundLogger)
    try:
        yield
    finally:
        structlog.configure(**before)


def foreseen(error: BaseException) -> bool:
    """Whether the error is one that the code raises to tell something, or that a fault has put there."""
    return isinstance(error, PileusError | OSError | Refused)


def _current() -> BaseException | None:
    return sys.exc_info()[1]
