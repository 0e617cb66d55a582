"""What a router remembers over a restart: the applied config, and which passwords guests have set.

The directory is root's alone. A password that a guest has set is not kept: it has done its work.
"""

import hashlib
import os
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pileus.wire.operations import RouterFacts
from pileus.wire.router import GuestData, RouterConfig


@dataclass(frozen=True)
class Applied:
    """A config that was applied. Its fingerprint is that of the config as it came, with all its passwords."""

    config: RouterConfig
    fingerprint: str
    encoded: bytes = field(default=b"", compare=False, repr=False)
    """The config without its generation, as JSON; b"" where that is not at hand."""

    def facts(self) -> RouterFacts:
        return RouterFacts(generation=self.config.generation, fingerprint=self.fingerprint)


def described(config: RouterConfig) -> Applied:
    """As `wire.router.fingerprint`, which keeps what it has encoded to be written."""
    encoded = msgspec.json.encode(msgspec.structs.replace(config, generation=0))
    return Applied(config, hashlib.sha256(encoded).hexdigest(), encoded)


class _Head(msgspec.Struct):
    """First line of the file; the config is the second."""

    generation: int
    fingerprint: str


class Store:
    """Files in `directory`, each replaced in one step."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)

    @property
    def lease_file(self) -> Path:
        """Where dnsmasq keeps its leases."""
        return self._directory / "leases"

    def applied(self) -> Applied | None:
        """The config that was applied last, if there was one; raises ValueError when the file is damaged."""
        path = self._directory / "applied.json"
        if not path.exists():
            return None
        head_line, _, config_line = path.read_bytes().partition(b"\n")
        head = msgspec.json.decode(head_line, type=_Head)
        config = msgspec.json.decode(config_line, type=RouterConfig)
        return Applied(msgspec.structs.replace(config, generation=head.generation), head.fingerprint)

    def keep_applied(self, applied: Applied, saved: AbstractSet[str]) -> None:
        """Remember `applied`, without the passwords whose ids are in `saved`.

        It outlives the program at once, and a crash of the machine a little later: there it is pushed anew.
        """
        encoded = applied.encoded
        if not encoded or any(one.password_id in saved for one in applied.config.guests):
            guests = (_without_password(one) if one.password_id in saved else one for one in applied.config.guests)
            encoded = msgspec.json.encode(msgspec.structs.replace(applied.config, guests=tuple(guests), generation=0))
        head = msgspec.json.encode(_Head(applied.config.generation, applied.fingerprint))
        self._write("applied.json", head, b"\n", encoded)

    def saved(self) -> set[str]:
        """Ids of passwords that guests have set."""
        path = self._directory / "saved.json"
        return msgspec.json.decode(path.read_bytes(), type=set[str]) if path.exists() else set()

    def keep_saved(self, ids: AbstractSet[str]) -> None:
        self._write("saved.json", msgspec.json.encode(sorted(ids)), durably=True)

    def _write(self, name: str, *content: bytes, durably: bool = False) -> None:
        path = self._directory / name
        new = path.with_name(f"{name}.new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.writelines(content)
            file.flush()
            if durably:
                os.fsync(file.fileno())
        new.replace(path)
        if durably:
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)


def _without_password(guest: GuestData) -> GuestData:
    return msgspec.structs.replace(guest, password="saved")  # noqa: S106
