"""What is written of routers on a host: a directory each, made before anything else and removed after everything."""

import contextlib
import os
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec

from pileus.agent.backend import Refused
from pileus.agent.backends.kvm import programs, router_control
from pileus.wire.operations import Reason, RouterSpec

MOST_NICS = 2

_name = re.compile(r"r-([0-9]{1,10})-VM")


class Life(msgspec.Struct, frozen=True):
    """What is written of a router before it is made."""

    router: RouterSpec
    bridges: tuple[str, ...]


class Lives:
    """The records of one launcher's routers below `state`, a directory of its own."""

    def __init__(self, state: Path) -> None:
        self._state = state

    def names(self) -> list[str]:
        """Names of all routers that have a directory."""
        if not self._state.exists():
            return []
        return sorted(path.name for path in self._state.iterdir() if _name.fullmatch(path.name))

    def place(self, name: str) -> Path:
        """A router's directory, there or not. Raises Refused (REJECTED) for what is no router's name."""
        return self._state / checked(name)

    def of(self, name: str) -> Life | None:
        """The life that is written down, or None."""
        try:
            return msgspec.json.decode((self.place(name) / "life.json").read_bytes(), type=Life)
        except FileNotFoundError:
            return None

    def every(self) -> list[Life]:
        """All lives, by name."""
        return [life for name in self.names() if (life := self.of(name)) is not None]

    def keep(self, life: Life) -> None:
        """Write a life down, in one step."""
        place = self.place(life.router.name)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = place / "life.json.new"
        with new.open("wb") as file:
            file.write(msgspec.json.encode(life))
            file.flush()
            os.fsync(file.fileno())
        new.replace(place / "life.json")

    def known(self, router: RouterSpec) -> bool:
        """True when this very life is written down. Raises Refused (STALE_EPOCH) when a newer one is."""
        life = self.of(router.name)
        if life is not None and life.router.epoch > router.epoch:
            text = f"epoch {router.epoch} of {router.name} is older than {life.router.epoch}"
            raise Refused(Reason.STALE_EPOCH, text)
        return life is not None and life.router.epoch == router.epoch


def checked(name: str) -> str:
    """The name. Raises Refused (REJECTED) for what is no router's name."""
    if not _name.fullmatch(name):
        raise Refused(Reason.REJECTED, f"{name!r} is not the name of a router")
    return name


def number_of(name: str) -> str:
    """The number in a router's name."""
    return checked(name).split("-")[1]


def check(router: RouterSpec, bridges: Sequence[str]) -> None:
    """Raise Refused (REJECTED) when a router of this shape cannot be."""
    checked(router.name)
    if not 1 <= len(router.nics) <= MOST_NICS or len(bridges) != len(router.nics):
        raise Refused(Reason.REJECTED, f"router {router.name} has {len(router.nics)} NICs and {len(bridges)} bridges")


@contextlib.asynccontextmanager
async def refusing(what: str) -> AsyncIterator[None]:
    """Programs and sockets that fail become a refusal with what they said."""
    try:
        yield
    except (programs.Failed, router_control.Unreachable, OSError) as error:
        raise Refused(Reason.FAILED, f"router {what}: {error}") from error
