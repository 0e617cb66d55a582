"""What somebody wants to go wrong in a running fleet: TOML files, one at its start, others dropped beside it live.

[behaviour]                      # on top of how hosts behave, from now on; see pileus.wire.simulated
latency = "lognormal:0.05:0.4"
"refuse.StartVm" = "0.02"

[[mishap]]                       # what: die, cut, storage, crash or shutdown
what = "die"
hosts = "sim-1*"                 # names, with * and ?; all of them unless given
share = 0.1                      # how many of those, chosen by the fleet's seed
seconds = 60.0                   # for how long
after = 30.0                     # seconds from the reading of the file
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from pileus.wire.simulated import LONGEST_SECONDS, BadBehaviour, behaviour


class Mishap(StrEnum):
    """What can be ordered to happen to a host."""

    DIE = "die"
    """It loses its power: its guests are gone, its disks are not."""

    CUT = "cut"
    """Nobody reaches it; its guests run on."""

    STORAGE = "storage"
    """It does not reach its primary storage: what needs it is refused."""

    CRASH = "crash"
    """Each guest on it crashes."""

    SHUTDOWN = "shutdown"
    """Each guest on it is turned off from inside."""


class BadOrders(ValueError):
    """The document cannot be used; the text names the entry."""


@dataclass(frozen=True)
class Order:
    """One thing that is to happen."""

    what: Mishap
    hosts: str = "*"
    share: float = 1.0
    seconds: float = 60.0
    after: float = 0.0

    def about(self, name: str, chance: float) -> bool:
        """Whether the host of this name is meant; `chance` (0 to 1) decides about shares."""
        return fnmatchcase(name, self.hosts) and chance < self.share


@dataclass(frozen=True)
class Orders:
    """A document, checked."""

    settings: Mapping[str, str] = field(default_factory=dict)
    mishaps: tuple[Order, ...] = ()


def read_orders(text: str) -> Orders:
    """Read a document. Raises `BadOrders`."""
    try:
        document = tomllib.loads(text)
        unknown = set(document) - {"behaviour", "mishap"}
        if unknown:
            raise BadOrders(f"unknown {', '.join(sorted(unknown))}; known are behaviour and mishap")
        table, list_ = document.get("behaviour", {}), document.get("mishap", [])
        if not isinstance(table, dict) or not isinstance(list_, list):
            raise BadOrders("a [behaviour] table and [[mishap]] tables are needed")
        settings = {name: str(value) for name, value in table.items()}
        behaviour(settings)
        return Orders(settings, tuple(_order(number, each) for number, each in enumerate(list_, 1)))
    except (tomllib.TOMLDecodeError, BadBehaviour) as error:
        raise BadOrders(str(error)) from error


def _order(number: int, table: object) -> Order:
    where = f"mishap {number}: "
    if not isinstance(table, dict):
        raise BadOrders(f"{where}a table is needed")
    given: dict[str, Any] = dict(table)
    try:
        what = Mishap(given.pop("what", ""))
    except ValueError:
        raise BadOrders(f"{where}what: one of {', '.join(Mishap)} is needed") from None
    hosts = given.pop("hosts", "*")
    numbers = {"share": (1.0, 1.0), "seconds": (60.0, LONGEST_SECONDS), "after": (0.0, LONGEST_SECONDS)}
    values = {name: given.pop(name, usual) for name, (usual, _) in numbers.items()}
    if given:
        raise BadOrders(f"{where}unknown {', '.join(sorted(given))}; known are what, hosts, {', '.join(numbers)}")
    if not isinstance(hosts, str):
        raise BadOrders(f"{where}hosts: a name is needed, * and ? stand for others")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= numbers[name][1]:
            raise BadOrders(f"{where}{name}: a number from 0 to {numbers[name][1]:g} is needed")
    return Order(what, hosts, **{name: float(value) for name, value in values.items()})
