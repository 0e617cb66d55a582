"""Signs of life of one line. A heartbeat costs one assignment, however many hosts it speaks for."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Pulse:
    """When the line was last heard, in seconds of a steady clock, and which of its hosts (by id) are silent since when.

    `lost` hosts were silent for so long that they were called Down; when they speak again they are to be called Up.
    """

    heard_at: float = field(default_factory=time.monotonic)
    silent: dict[int, float] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    def beat_whole(self) -> bool:
        """A heartbeat that leaves no host out. False when one was left out before: then `beat` has to be told."""
        self.heard_at = time.monotonic()
        return not self.silent

    def beat(self, silent: Iterable[int], *, now: float) -> set[int]:
        """A heartbeat that leaves out some hosts. Returns those that were lost and speak again."""
        self.heard_at = now
        if not self.silent and not silent:
            return set()
        self.silent = {host_id: self.silent.get(host_id, now) for host_id in silent}
        back = self.lost - set(self.silent)
        self.lost -= back
        return back

    def late(self, *, since: float) -> list[int]:
        """Hosts silent from before `since` that are not lost yet; they are lost from now on."""
        found = [host_id for host_id, at in self.silent.items() if at <= since and host_id not in self.lost]
        self.lost.update(found)
        return found
