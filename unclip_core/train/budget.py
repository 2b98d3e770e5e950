"""How long a training lasts: so many steps, so much time, or whichever ends first."""

import time
from collections.abc import Callable

from .config import Training


class Budget:
    """The share of a training that is over, by its steps and by its time; the further of the two counts.

    Attributes:
        seconds: that it has taken so far, over all its runs, as of the last `tick`.
    """

    def __init__(self, training: Training, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps, self._last, self._limit = training.steps, training.last, 60 * training.minutes
        self._clock, self._mark = clock, clock()
        self.seconds = 0.0

    def start(self, seconds: float) -> None:
        """Begin to count now, after `seconds` of earlier runs."""
        self.seconds, self._mark = seconds, self._clock()

    def tick(self) -> float:
        """Count up to now; returns the seconds so far."""
        now = self._clock()
        self.seconds, self._mark = self.seconds + now - self._mark, now
        return self.seconds

    @property
    def share_of_time(self) -> float:
        """The share 0..1 of the time that is over; 0 without a limit."""
        return min(1.0, self.seconds / self._limit) if self._limit else 0.0

    def is_over(self, step: int) -> bool:
        """Tell whether a training that has done `step` steps is at its end."""
        return step >= self._last or (self._limit > 0 and self.seconds >= self._limit)

    def seconds_left(self, step: int) -> float | None:
        """Estimate the seconds that are left after `step` steps; None where nothing tells."""
        left = []
        if self._limit:
            left.append(max(0.0, self._limit - self.seconds))
        if self._steps and step and self.seconds:
            left.append((self._last - step) * self.seconds / step)
        return min(left, default=None)
