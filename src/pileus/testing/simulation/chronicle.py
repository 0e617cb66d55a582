"""What happened in a run, line by line; and what went wrong that no answer tells: errors that nobody foresaw."""

import hashlib
from dataclasses import dataclass, field

from pileus.testing.clock import FakeClock


@dataclass
class Chronicle:
    """The readable trace of a run. Its digest tells whether two runs were the same."""

    clock: FakeClock
    lines: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    """Errors that are wrong wherever they appear: in a step, a reconciler, a call."""
    began_at: int = 0

    def __post_init__(self) -> None:
        self.began_at = self.clock.now()

    def note(self, text: str) -> None:
        """Add what happens now."""
        self.lines.append(f"{(self.clock.now() - self.began_at) / 1000:10.3f}  {text}")

    def bug(self, text: str) -> None:
        """Add an error that nobody foresaw."""
        self.note(f"BUG {text.splitlines()[-1] if text else ''}")
        self.bugs.append(text)

    @property
    def digest(self) -> str:
        """SHA-256 of the trace."""
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
