"""How far a run is, as a line of text."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .job import Counts

EVERY = 5.0  # seconds between two lines


@dataclass
class ProgressLines:
    """Prints a line at the start, every few seconds, and at the end."""

    say: Callable[[str], None]
    every: float = EVERY
    clock: Callable[[], float] = time.monotonic
    _next: float = field(default=float("-inf"), init=False)

    def __call__(self, counts: Counts) -> None:
        """Say how far it is, if it is time to."""
        now = self.clock()
        if now >= self._next or not counts.left:
            self._next = now + self.every
            self.say(progress_line(counts))


def progress_line(counts: Counts) -> str:
    """Such as "120 of 500 rows (24 %), 3.1 rows/s, 2 min left, 1 failed"."""
    done = counts.before + counts.made + counts.failed
    said = [f"{done:,} of {counts.total:,} rows ({done / counts.total:.0%})"]
    if counts.rate:
        said.append(f"{counts.rate:.1f} rows/s")
        if counts.left:
            said.append(f"{_duration(counts.left / counts.rate)} left")
    if counts.failed:
        said.append(f"{counts.failed:,} failed")
    return ", ".join(said)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
