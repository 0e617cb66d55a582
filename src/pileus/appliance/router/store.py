"""What a router remembers over a restart: the applied config, and which passwords guests have set.

The directory is root's alone. A password that a guest has set is not kept: it has done its work.
"""

import os
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from pileus.wire.operations import RouterFacts
from pileus.wire.router import GuestData, RouterConfig


class Applied(msgspec.Struct, frozen=True):
    """A config that was applied. Its fingerprint is that of the config as it came, with all its passwords."""

    config: RouterConfig
    fingerprint: str

    def facts(self) -> RouterFacts:
        return RouterFacts(generation=self.config.generation, fingerprint=self.fingerprint)


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
        return msgspec.json.decode(path.read_bytes(), type=Applied) if path.exists() else None

    def keep_applied(self, applied: Applied, saved: AbstractSet[str]) -> None:
        """Remember `applied`, without the passwords whose ids are in `saved`."""
        guests = (_without_password(one) if one.password_id in saved else one for one in applied.config.guests)
        config = msgspec.structs.replace(applied.config, guests=tuple(guests))
        self._write("applied.json", msgspec.structs.replace(applied, config=config))

    def saved(self) -> set[str]:
        """Ids of passwords that guests have set."""
        path = self._directory / "saved.json"
        return msgspec.json.decode(path.read_bytes(), type=set[str]) if path.exists() else set()

    def keep_saved(self, ids: AbstractSet[str]) -> None:
        self._write("saved.json", sorted(ids))

    def _write(self, name: str, content: object) -> None:
        path = self._directory / name
        new = path.with_name(f"{name}.new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(content))
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _without_password(guest: GuestData) -> GuestData:
    return msgspec.structs.replace(guest, password="saved")  # noqa: S106
