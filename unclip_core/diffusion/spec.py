"""The diffusion process that a net was trained on."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from .denoiser import ModelDenoiser, PredictionType, VarianceType, clamp_x0
from .samplers import SAMPLERS
from .schedules import SCHEDULES, Steps, alpha_bar, diffusers_steps, make_steps


@dataclass(frozen=True)
class DiffusionSpec:
    """The forward process that a net was trained on, and how its output is read.

    Attributes:
        schedule: name in `SCHEDULES` ("cosine", "linear", "scaled_linear").
        train_steps: number of discrete steps `T`.
        prediction: "sample" (x0), "epsilon" or "v_prediction".
        variance: "fixed_small", "fixed_small_log", "fixed_large" or "learned_range".
        clip_range: x0 is clamped to ± this after guidance; None leaves it.
        spacing: how sampling timesteps are chosen, a name in `SPACINGS`.
        compatible: with diffusers' float32 tables in place of exact ones, to repeat its images.
        solver_spacing: the spacing for samplers of order 2, which extrapolate too far where a plan visits t = 0;
            None takes `spacing`.
    """

    schedule: str = "cosine"
    train_steps: int = 1000
    prediction: PredictionType = "sample"
    variance: VarianceType = "fixed_small"
    clip_range: float | None = None
    spacing: str = "trailing"
    compatible: bool = False
    solver_spacing: str | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DiffusionSpec":
        """From JSON; unknown keys are refused.

        Raises:
            ValueError: a key is not known.
        """
        known = {item.name for item in fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"Unknown diffusion settings {unknown}; known are {sorted(known)}.")
        return cls(**data)

    @property
    def table(self) -> Tensor:
        """alpha-bar by training step, float64 `[T]`."""
        return alpha_bar(self._betas, torch.float32 if self.compatible else torch.float64)

    @property
    def _betas(self) -> Tensor:
        return SCHEDULES[self.schedule](self.train_steps)

    def steps(self, count: int, sampler: str | None = None) -> Steps:
        """The plan of a run of `count` steps, for a sampler by its name."""
        if self.solver_spacing and sampler in SAMPLERS and SAMPLERS[sampler].order > 1:
            return make_steps(count, self.table, self.solver_spacing)
        if self.compatible:
            return diffusers_steps(count, self._betas, self.spacing)
        return make_steps(count, self.table, self.spacing)

    def denoiser(self, model: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> ModelDenoiser:
        """Read a raw model that computes in `dtype` under this process."""
        clip = None if self.clip_range is None else clamp_x0(self.clip_range)
        return ModelDenoiser(model, self.table, self.prediction, self.variance, clip, dtype)
