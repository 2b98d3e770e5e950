"""The one loop over timesteps: samplers, inversion and inpainting say what a step does, this makes the steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Denoiser, Prediction, with_host_timestep

__all__ = ["OnStep", "StepInfo", "Update", "run_steps"]


@dataclass(frozen=True)
class StepInfo:
    """What a callback is told after a step; both tensors are the sampler's own: read, do not write.

    Attributes:
        index: 0-based.
        total: number of steps.
        t: the timestep that the net was told.
        x: the state after the step.
        x0: the clean sample predicted in it.
    """

    index: int
    total: int
    t: int
    x: Tensor
    x0: Tensor


OnStep = Callable[[StepInfo], None]
Update = Callable[[int, Tensor, Prediction], Tensor]
"""(index of the step, state, prediction at the state) -> the next state."""

Before = Callable[[int, Tensor], Tensor]
"""(index of the step, state) -> the state that the denoiser is shown in it."""


def run_steps(
    denoiser: Denoiser,
    x: Tensor,
    timesteps: Sequence[int],
    update: Update,
    on_step: OnStep | None = None,
    before: Before | None = None,
) -> Tensor:
    """Denoise and update once a timestep, and return the last state.

    Args:
        x: state `[B, …]`, float32 or float64.
        timesteps: what the net is told, step by step, in any order.
        on_step: called after each update.
        before: changes the state before the denoiser sees it.

    Raises:
        ValueError: the state has another dtype, or the denoiser returns another shape.
    """
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"a sampler's state must be float32 or float64, not {x.dtype} (a net may be lower)")
    times = torch.tensor(timesteps, dtype=torch.int64).to(x.device)
    for i, number in enumerate(timesteps):
        if before is not None:
            x = before(i, x)
        prediction = denoiser(x, with_host_timestep(times[i].expand(len(x)), number))
        if i == 0 and prediction.x0.shape != x.shape:
            raise ValueError(f"the denoiser returned x0 of {tuple(prediction.x0.shape)} for {tuple(x.shape)}")
        x = update(i, x, prediction)
        if on_step is not None:
            on_step(StepInfo(i, len(timesteps), number, x, prediction.x0))
    return x
