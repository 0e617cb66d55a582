"""Where a cloud on this machine keeps its files, and which profile a call uses."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from pileus.cli.client import Profile

VARIABLES = ("CLOUDSTACK_ENDPOINT", "CLOUDSTACK_KEY", "CLOUDSTACK_SECRET")
DEFAULT_STATE = "/var/lib/pileus/local"


@dataclass(frozen=True)
class State:
    """Paths below one directory."""

    root: Path

    @property
    def server_config(self) -> Path:
        return self.root / "server.toml"

    @property
    def agent_config(self) -> Path:
        return self.root / "agent.toml"

    @property
    def profile(self) -> Path:
        return self.root / "client.toml"

    @property
    def password(self) -> Path:
        return self.root / "server" / "admin-password"

    @property
    def logs(self) -> Path:
        return self.root / "log"

    @property
    def template(self) -> Path:
        return self.root / "image" / "default.qcow2"

    def ensure(self) -> None:
        """Make the directories; only root reads them, for keys lie there."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in ("server", "log", "image", "hosts", "primary", "secondary", "agent"):
            (self.root / name).mkdir(exist_ok=True)


def default_state() -> Path:
    """The directory of the cloud on this machine: $PILEUS_STATE, or the usual place."""
    return Path(os.environ.get("PILEUS_STATE", DEFAULT_STATE))


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, in one go."""
    half = path.with_name(path.name + ".new")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    half.replace(path)


def store_profile(path: Path, profile: Profile) -> None:
    """Remember where the API is and how to sign."""
    write_secret(
        path,
        f'endpoint = "{profile.endpoint}"\napi_key = "{profile.api_key}"\nsecret_key = "{profile.secret_key}"\n',
    )


def read_profile(path: Path) -> Profile:
    """Read what `store_profile` wrote. Raises OSError and KeyError."""
    document = tomllib.loads(path.read_text())
    return Profile(document["endpoint"], document["api_key"], document["secret_key"])


class BadProfile(Exception):
    """There are keys somewhere and they cannot be used; the text says why."""


def find_profile(state: Path) -> Profile | None:
    """$CLOUDSTACK_ENDPOINT, _KEY and _SECRET (as other clients name them), else the cloud on this machine.

    None when there is neither. Raises `BadProfile` for half of the variables, or a file that cannot be read.
    """
    given = {name: os.environ.get(name, "") for name in VARIABLES}
    if all(given.values()):
        return Profile(*given.values())
    if any(given.values()):
        missing = " and ".join(name for name, value in given.items() if not value)
        raise BadProfile(f"{missing} must be set too, or none of {', '.join(VARIABLES)}")
    path = State(state).profile
    try:
        return read_profile(path)
    except FileNotFoundError:
        return None
    except PermissionError:
        raise BadProfile(f"{path} belongs to somebody else: run it with sudo") from None
    except (OSError, KeyError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadProfile(f"{path} cannot be used ({error}): remove it and run `pileus up`") from None
