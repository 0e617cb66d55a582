"""How a simulated host behaves: how fast it answers, and what goes wrong on it how often. One language everywhere.

Settings are texts by name; `addHost` takes them as the query of the host's URL, a fleet as options and in files:

    latency=lognormal:0.05:0.4      seconds that an operation takes: constant:S, uniform:LOW:HIGH, lognormal:MEAN:P99
    latency.StartVm=uniform:1:3     the same for one kind of operation
    refuse=0.01                     share of operations that are refused; refuse.StartVm=0.05 for one kind
    lose=0.01                       share of answers that are lost; the host's connection is made anew soon after
    late=0.01:uniform:5:60          share of answers that come so many seconds late
    twice=0.01                      share of answers that come twice
    die=0.1:constant:60             times an hour that the host loses its power, and for how many seconds
    cut=0.1:uniform:5:200           times an hour that nobody reaches it while its guests run on
    storage=0.1:constant:30         times an hour that it does not reach its primary storage
    crash=0.01                      times an hour that a guest on it crashes
    shutdown=0.01                   times an hour that somebody inside a guest turns it off
"""

import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import NormalDist

from pileus.wire.operations import AnyOperation, Reason

KINDS = frozenset(kind.__name__ for kind in typing.get_args(AnyOperation))
"""Kinds of operations, as settings name them."""

LONGEST_SECONDS = 86_400.0
MOST_AN_HOUR = 3600.0
_P99 = NormalDist().inv_cdf(0.99)
_STEEPEST = math.exp(_P99**2 / 2)
"""No lognormal distribution has a 99th percentile further above its mean than this many times."""


class BadBehaviour(ValueError):
    """A setting that cannot be used; the text names it and says what is allowed."""


@dataclass(frozen=True)
class Spread:
    """A distribution of seconds."""

    shape: str
    first: float
    second: float = 0.0

    def at(self, share: float) -> float:
        """The seconds that `share` (0 to 1, exclusive) of all cases do not exceed."""
        match self.shape:
            case "constant":
                return self.first
            case "uniform":
                return self.first + share * (self.second - self.first)
            case _:
                sigma = _P99 - math.sqrt(max(0.0, _P99**2 - 2 * math.log(self.second / self.first)))
                middle = math.log(self.first) - sigma**2 / 2
                z = NormalDist().inv_cdf(min(max(share, 1e-9), 1 - 1e-9))
                return math.exp(middle + sigma * z)


AT_ONCE = Spread("constant", 0.0)


@dataclass(frozen=True)
class Outages:
    """Something that happens `an_hour` times to a host, and how long it lasts."""

    an_hour: float = 0.0
    lasts: Spread = AT_ONCE


@dataclass(frozen=True)
class Behaviour:
    """Everything the settings say. Shares are 0 to 1; `by_kind` maps a kind of operation to what is special of it."""

    latency: Spread = AT_ONCE
    latency_by_kind: Mapping[str, Spread] = field(default_factory=dict)
    refuse: float = 0.0
    refuse_by_kind: Mapping[str, float] = field(default_factory=dict)
    reason: Reason = Reason.FAILED
    lose: float = 0.0
    late: float = 0.0
    lateness: Spread = AT_ONCE
    twice: float = 0.0
    die: Outages = Outages()
    cut: Outages = Outages()
    storage: Outages = Outages()
    crash: float = 0.0
    shutdown: float = 0.0

    @property
    def restless(self) -> bool:
        """Whether something happens by itself."""
        return any((self.die.an_hour, self.cut.an_hour, self.storage.an_hour, self.crash, self.shutdown))

    def latency_of(self, kind: str) -> Spread:
        """How long operations of this kind take."""
        return self.latency_by_kind.get(kind, self.latency)

    def refuse_of(self, kind: str) -> float:
        """Share of operations of this kind that are refused."""
        return self.refuse_by_kind.get(kind, self.refuse)


def behaviour(settings: Mapping[str, str], *, on: Behaviour | None = None) -> Behaviour:
    """What the settings say, on top of another behaviour. Raises `BadBehaviour`."""
    made = on or Behaviour()
    for name, text in settings.items():
        made = _with(made, name, text)
    return made


def is_setting(name: str) -> bool:
    """Whether a setting of behaviour has this name."""
    return name in _NAMES or name.partition(".")[0] in ("latency", "refuse")


_NAMES = ("latency", "refuse", "reason", "lose", "late", "twice", "die", "cut", "storage", "crash", "shutdown")


def _with(made: Behaviour, name: str, text: str) -> Behaviour:
    plain, _, kind = name.partition(".")
    if kind and kind not in KINDS:
        raise BadBehaviour(f"{name}: there is no operation {kind}; there are {', '.join(sorted(KINDS))}")
    match plain:
        case "latency" if kind:
            return replace(made, latency_by_kind={**made.latency_by_kind, kind: spread(name, text)})
        case "latency":
            return replace(made, latency=spread(name, text))
        case "refuse" if kind:
            return replace(made, refuse_by_kind={**made.refuse_by_kind, kind: _share(name, text)})
        case _ if kind or plain not in _NAMES:
            raise BadBehaviour(f"{name}: unknown; known are {', '.join(_NAMES)}, latency.KIND and refuse.KIND")
        case "reason":
            try:
                return replace(made, reason=Reason(text))
            except ValueError:
                raise BadBehaviour(f"{name}: one of {', '.join(Reason)} is needed") from None
        case "late":
            share, _, lateness = text.partition(":")
            return replace(made, late=_share(name, share), lateness=spread(name, lateness or "constant:30"))
        case "die" | "cut" | "storage":
            rate, _, lasts = text.partition(":")
            outages = Outages(_rate(name, rate), spread(name, lasts or "constant:60"))
            return replace(made, **{plain: outages})  # type: ignore[arg-type]
        case "crash" | "shutdown":
            return replace(made, **{plain: _rate(name, text)})  # type: ignore[arg-type]
        case _:
            return replace(made, **{plain: _share(name, text)})  # type: ignore[arg-type]


def spread(name: str, text: str) -> Spread:
    """Read `constant:S`, `uniform:LOW:HIGH`, `lognormal:MEAN:P99` or plain seconds. Raises `BadBehaviour`."""
    shape, *numbers = text.split(":") if ":" in text else ("constant", text)
    values = [_number(name, number, LONGEST_SECONDS, "seconds") for number in numbers]
    match shape, values:
        case "constant", [seconds]:
            return Spread(shape, seconds)
        case "uniform", [low, high] if low <= high:
            return Spread(shape, low, high)
        case "lognormal", [mean, p99] if 0 < mean <= p99 <= _STEEPEST * mean:
            return Spread(shape, mean, p99)
        case _:
            raise BadBehaviour(
                f"{name}: constant:SECONDS, uniform:LOW:HIGH or lognormal:MEAN:P99 is needed, LOW not above HIGH, and "
                f"P99 from MEAN to {_STEEPEST:.0f} times MEAN"
            )


def _share(name: str, text: str) -> float:
    return _number(name, text, 1.0, "a share")


def _rate(name: str, text: str) -> float:
    return _number(name, text, MOST_AN_HOUR, "times an hour")


def _number(name: str, text: str, most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= most:
        raise BadBehaviour(f"{name}: {what} from 0 to {most:g} is needed, not {text[:40]!r}")
    return value
