"""A film of a sampling run: the states that it went through, and what the net saw in each."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from .loop import StepInfo

__all__ = ["Film"]


@dataclass
class Film:
    """Records a sampling run, as its `on_step`: every k-th step, the last step, and the end; all on the CPU.

    Attributes:
        start: the state that the run begins with, `[B, C, H, W]`.
        every: k, 1 or more.
        times: each frame's timestep; None for the end.
        states: each frame's x_t, `[B, C, H, W]`; at the end the result.
        predictions: the x0 that the net predicted of it; at the end the result.

    Raises:
        ValueError: `every` is below 1.
    """

    start: Tensor
    every: int = 1
    times: list[int | None] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check `every`; the state before the first step is the start."""
        if self.every < 1:
            raise ValueError(f"a film shows every k-th step, with k 1 or more, not {self.every}")
        self._before = self.start

    def __call__(self, info: StepInfo) -> None:
        """Record the step, if it is one of those to be shown."""
        last = info.index + 1 == info.total
        if info.index % self.every == 0 or last:
            self._add(info.t, self._before, info.x0)
        self._before = info.x
        if last:
            self._add(None, info.x, info.x)

    def _add(self, time: int | None, state: Tensor, prediction: Tensor) -> None:
        self.times.append(time)
        self.states.append(state.detach().to("cpu", torch.float32))
        self.predictions.append(prediction.detach().to("cpu", torch.float32))
