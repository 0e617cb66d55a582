"""What goes wrong in a simulated world, and time in it. Everything is decided by a seed, so a run can be repeated."""

import asyncio
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pileus.agent.backend import Refused
from pileus.wire.operations import Reason


class AgentDied(BaseException):
    """The agent process ended at this point, as by kill -9: nobody catches it, nothing is cleaned up."""


class When(StrEnum):
    """Whether the host acted before the fault."""

    BEFORE = "before"
    AFTER = "after"


@dataclass
class Fault:
    """One armed fault: fires `times` times at the named backend call (`*` is any; `finish` is the journal's).

    With a `reason` the call is refused; with `dies` the agent ends; with neither the call fails with an error that
    nobody foresaw. `subject` is the guest, router, volume or template name, `*` for any.
    """

    call: str
    when: When = When.BEFORE
    reason: Reason | None = None
    dies: bool = False
    host: str = "*"
    subject: str = "*"
    times: int = 1


class Faults:
    """The armed faults of a world, and how often each call was made."""

    def __init__(self) -> None:
        self.armed: list[Fault] = []
        self.calls: list[tuple[str, str, str]] = []
        """Host, call and subject of every backend call, in order."""

    def arm(self, fault: Fault) -> Fault:
        """Let it happen. Returns the fault, whose `times` counts down to 0."""
        self.armed.append(fault)
        return fault

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self.armed.clear()

    def strike(self, host: str, call: str, subject: str, when: When) -> None:
        """Raise what is armed for this point, if anything is."""
        if when is When.BEFORE:
            self.calls.append((host, call, subject))
        for fault in self.armed:
            if fault.when is not when or fault.times < 1:
                continue
            if fault.call in ("*", call) and fault.host in ("*", host) and fault.subject in ("*", subject):
                fault.times -= 1
                if fault.dies:
                    raise AgentDied(f"{call} {subject} on {host}")
                if fault.reason is not None:
                    raise Refused(fault.reason, f"simulated refusal of {call} {subject}")
                raise OSError(f"simulated failure of {call} {subject}")


class Clock(Protocol):
    """Time of a simulated world, in seconds."""

    def now(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...


class RunningClock:
    """Time as it passes, for simulated hosts in an agent process."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class InstantClock:
    """Time that moves only when somebody sleeps, and then at once: no call ever waits."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += max(0.0, seconds)


class Dice:
    """Numbers between 0 and 1 that look random and are the same for the same seed. Not for secrets."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._throws = 0

    def throw(self) -> float:
        """The next number, 0 <= n < 1."""
        self._throws += 1
        digest = hashlib.blake2b(self._throws.to_bytes(8, "big"), key=self._seed[:64], digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
