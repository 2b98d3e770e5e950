"""How far a long work is: a bar on a terminal, and lines now and then where there is none."""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..output import progress_bar, say

EVERY = 30.0
"""Seconds between lines."""


class Progress:
    """The progress of one work, on stderr; use it as a context."""

    def __init__(
        self,
        name: str,
        unit: str,
        total: int | None,
        done: int = 0,
        shown: bool = True,
        tell: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Say what is to be done.

        Args:
            name: of the work.
            unit: of what is counted, singular.
            total: how many there are; None where nobody knows.
            done: how many an earlier run has done.
            shown: False says nothing at all.
            tell: takes each line; None shows a bar on stderr where that is a terminal, and lines on it elsewhere.
            clock: of the seconds.
        """
        self._name, self._unit, self._total, self._done = name, unit, total, done
        self._clock = clock
        self._said = (clock(), done)
        bar = shown and tell is None and sys.stderr.isatty()
        self._tell = tell or partial(say, to_stderr=True)
        self._lines = shown and not bar
        self._bar: Any = progress_bar(total=total, initial=done, desc=name, unit=unit) if bar else None

    def __enter__(self) -> "Progress":
        self._line(f"{self._count()} at the start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        self._line(f"{self._count()} at the end")

    def update(
        self,
        done: int,
        figures: Callable[[], Mapping[str, float]] = dict,
        seconds_left: Callable[[], float | None] | None = None,
    ) -> None:
        """Tell how many are done.

        Args:
            done: the new count.
            figures: gives what is shown beside; called only when something is said, as it may wait for a GPU.
            seconds_left: gives an estimate in place of the one from counts.
        """
        steps, self._done = done - self._done, done
        if self._bar is not None:
            self._bar.update(steps)
        now = self._clock()
        seconds = now - self._said[0]
        if seconds < EVERY:
            return
        rate = (done - self._said[1]) / seconds
        self._said = (now, done)
        shown = {name: f"{value:.4g}" for name, value in figures().items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        left = seconds_left() if seconds_left else (self._total - done) / rate if self._total and rate else None
        said = [self._count(), *(f"{name} {value}" for name, value in shown.items()), f"{rate:.3g} {self._unit}s/s"]
        self._line(", ".join(said + ([] if left is None else [f"about {duration(left)} left"])))

    def _count(self) -> str:
        return f"{self._unit} {self._done:,}" + ("" if self._total is None else f" of {self._total:,}")

    def _line(self, text: str) -> None:
        if self._lines:
            self._tell(f"{self._name}: {text}")


def duration(seconds: float) -> str:
    """Write a time as people say it: "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
