"""How much of a run its live previews may take."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.2
"""Of a run's time, previews included: the most that they take."""


class PreviewBudget:
    """What a run of `total` steps can spend on previews that cost more than its own steps may.

    Ask `left` once after each step: its calls are how the steps are timed.

    Attributes:
        step_seconds: what a step takes on average, without previews; 0 until two have been seen.
        spent: seconds of previews so far.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.perf_counter) -> None:
        self._total, self._clock = total, clock
        self._first: float | None = None
        self._steps = 0
        self.step_seconds, self.spent = 0.0, 0.0

    def left(self) -> float:
        """Seconds that previews may still take, if the other steps take as long as those so far."""
        now = self._clock()
        if self._first is None:
            self._first = now
            return 0.0
        self._steps += 1
        self.step_seconds = (now - self._first - self.spent) / self._steps
        return SHARE / (1 - SHARE) * self.step_seconds * self._total - self.spent

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time inside as spent."""
        began = self._clock()
        try:
            yield
        finally:
            self.spent += self._clock() - began
