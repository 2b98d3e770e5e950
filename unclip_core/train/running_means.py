"""Means of what a training logs, summed on the device so that no step has to wait for it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

COUNT = "steps"
"""The sum that counts the steps."""


class RunningMeans:
    """Sums of named values over steps; only `collect` waits for the device and for other processes."""

    def __init__(self, processes: Any) -> None:
        self._processes = processes
        self._names: list[str] = []
        self._waiting: Tensor | None = None
        self._count = 0
        self.sums: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add a step's values, scalars on the device; the names are the same in each step."""
        self._names = list(values)
        row = torch.stack([values[name].detach().float() for name in self._names])
        self._waiting = row if self._waiting is None else self._waiting + row
        self._count += 1

    def collect(self) -> dict[str, float]:
        """Bring the sums up to date, the same in all processes, and return them; "steps" is how many they are over."""
        if self._waiting is not None:
            totals = self._processes.reduce(self._waiting, "mean").tolist()
            for name, total in zip(self._names, totals, strict=True):
                self.sums[name] = self.sums.get(name, 0.0) + total
            self.sums[COUNT] = self.sums.get(COUNT, 0.0) + self._count
            self._waiting, self._count = None, 0
        return self.sums

    def means(self) -> dict[str, float]:
        """Return the means over the steps that were collected."""
        count = self.sums.get(COUNT, 0.0)
        return {name: total / count for name, total in self.sums.items() if name != COUNT}
