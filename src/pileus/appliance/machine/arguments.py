"""What a system VM is told at its boot, by OEM strings of the SMBIOS: no device, no file (DMTF DSP0134, 7.12).

Each string is `pileus.KEY=VALUE`. Strings of others are none of our business.
"""

import re
from dataclasses import dataclass
from pathlib import Path

TABLES = Path("/sys/firmware/dmi/entries")
PREFIX = "pileus."

_OEM_STRINGS = 11
_LENGTH_AT = 1
_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_mac = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class NoArguments(Exception):
    """The machine was told nothing that it could work with; the text says what lacks."""


@dataclass(frozen=True)
class Arguments:
    """Name of the router, and the addresses of its cards; `public` is "" when it has no public side."""

    name: str
    guest: str
    public: str = ""


def read(tables: Path = TABLES) -> Arguments:
    """The arguments of this boot. Raises NoArguments."""
    told: dict[str, str] = {}
    for table in sorted(tables.glob(f"{_OEM_STRINGS}-*")):
        for text in strings((table / "raw").read_bytes()):
            key, mark, value = text.removeprefix(PREFIX).partition("=")
            if text.startswith(PREFIX) and mark:
                told[key] = value
    arguments = Arguments(told.get("name", ""), told.get("guest", ""), told.get("public", ""))
    if not _name.fullmatch(arguments.name):
        raise NoArguments(f"no name of a router: {arguments.name!r}")
    for side, mac in (("guest", arguments.guest), ("public", arguments.public)):
        if not _mac.fullmatch(mac) and (mac or side == "guest"):
            raise NoArguments(f"no address of the {side} card: {mac!r}")
    return arguments


def strings(table: bytes) -> list[str]:
    """The strings behind the formatted part of an SMBIOS structure."""
    rest = table[table[_LENGTH_AT] :] if len(table) > _LENGTH_AT else b""
    listed = rest.split(b"\0\0", 1)[0]
    return [each.decode(errors="replace") for each in listed.split(b"\0") if each]
