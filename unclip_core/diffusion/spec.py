"""The diffusion process that a net was trained on."""

from bisect import bisect_left
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from math import inf
from typing import Any, ClassVar, get_args

import torch
from torch import Tensor

from ..parsing import checked
from .denoiser import ModelDenoiser, PredictionType, VarianceType, X0Clip, clamp_x0, dynamic_threshold
from .samplers import SAMPLERS
from .schedules import SCHEDULES, SPACINGS, Steps, alpha_bar, diffusers_steps, make_steps, timesteps

MAX_TRAIN_STEPS = 100_000
"""Far above any model (1,000 to 4,000 are usual): tables of so many steps are made at once."""


@dataclass(frozen=True)
class DiffusionSpec:
    """The forward process that a net was trained on, and how its output is read.

    Attributes:
        schedule: name in `SCHEDULES` ("cosine", "linear", "scaled_linear").
        train_steps: number of discrete steps `T`, 1..`MAX_TRAIN_STEPS`.
        prediction: "sample" (x0), "epsilon" or "v_prediction".
        variance: "fixed_small", "fixed_small_log", "fixed_large" or "learned_range".
        clip_range: x0 is clamped to ± this after guidance; None leaves it.
        spacing: how sampling timesteps are chosen, a name in `SPACINGS`.
        compatible: with diffusers' float32 tables in place of exact ones, to repeat its images.
        solver_spacing: the spacing for samplers of order 2, which extrapolate too far where a plan visits t = 0;
            None takes `spacing`. Upsamplers take `spacing` with any sampler: see `pipelines.upscale`.
        beta_range: first and last beta of a "linear" or "scaled_linear" schedule; None takes the schedule's own.
        offset: added to the timesteps of `spacing`.
        ends_noisy: whether sampling ends at the table's first alpha-bar and not at 1 (`set_alpha_to_one` false); its
            plans may not visit t = 0 then, where nothing would be left to do.
        threshold: (percentile, greatest value) of dynamic thresholding, in place of `clip_range`.
        spare_variance: the net predicts a variance too, which a fixed one replaces.
    """

    schedule: str = "cosine"
    train_steps: int = 1000
    prediction: PredictionType = "sample"
    variance: VarianceType = "fixed_small"
    clip_range: float | None = None
    spacing: str = "trailing"
    compatible: bool = False
    solver_spacing: str | None = None
    beta_range: tuple[float, float] | None = None
    offset: int = 0
    ends_noisy: bool = False
    threshold: tuple[float, float] | None = None
    spare_variance: bool = False
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    def __post_init__(self) -> None:
        """Check the values; raises ValueError naming the one that is not known or out of range."""
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_choice("prediction", self.prediction, get_args(PredictionType))
        _check_choice("variance", self.variance, get_args(VarianceType))
        _check_choice("spacing", self.spacing, SPACINGS)
        if self.solver_spacing is not None:
            _check_choice("solver_spacing", self.solver_spacing, SPACINGS)
        if not isinstance(self.train_steps, int) or not 1 <= self.train_steps <= MAX_TRAIN_STEPS:
            raise ValueError(f"train_steps must be within 1..{MAX_TRAIN_STEPS:,}, got {str(self.train_steps)[:30]}")
        if self.clip_range is not None and not 0 < self.clip_range < inf:
            raise ValueError(f"clip_range must be positive and finite, got {self.clip_range}")
        if self.beta_range is not None:
            self._check_betas(*self.beta_range)
        if self.threshold is not None:
            dynamic_threshold(*self.threshold)
        if not 0 <= self.offset <= self.train_steps:
            raise ValueError(f"offset must be within 0..{self.train_steps}, got {self.offset}")
        if self.compatible and (self.offset or self.ends_noisy):
            raise ValueError(
                "compatible repeats diffusers' UnCLIPScheduler, which has no offset and ends clean: leave it out, or "
                f"offset {self.offset} and ends_noisy {self.ends_noisy}"
            )
        if self.ends_noisy and self.train_steps == 1:
            raise ValueError("ends_noisy needs 2 train_steps or more: a process of 1 ends where it begins")

    def _check_betas(self, start: float, end: float) -> None:
        if self.schedule == "cosine":
            raise ValueError(f"the cosine schedule takes no beta_range, got {start} to {end}")
        if not 0 < start <= end < 1:
            raise ValueError(f"betas must satisfy 0 < start <= end < 1, got {start} to {end}")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "DiffusionSpec":
        """From JSON; unknown keys are refused.

        Raises:
            ValueError: a key is not known, or a value of another type or out of range.
        """
        if not isinstance(data, dict):
            raise ValueError(f"A table of diffusion settings is needed, got {str(data)[:60]!r}.")
        known = {item.name for item in fields(cls)}
        if unknown := sorted(map(str, set(data) - known)):
            raise ValueError(f"Unknown diffusion settings {unknown}; known are {sorted(known)}.")
        return checked(cls, data, "The diffusion")

    @property
    def table(self) -> Tensor:
        """alpha-bar by training step, float64 `[T]`."""
        return alpha_bar(self._betas, torch.float32 if self.compatible else torch.float64)

    @property
    def _betas(self) -> Tensor:
        return SCHEDULES[self.schedule](self.train_steps, *(self.beta_range or ()))

    def steps(self, count: int, sampler: str | None = None) -> Steps:
        """The plan of a run of `count` steps, for a sampler by its name.

        Raises:
            ValueError: so many steps cannot be made, or they would visit t = 0 though the process ends there.
        """
        if self.solver_spacing and sampler in SAMPLERS and SAMPLERS[sampler].order > 1:
            return self._plan(count, self.solver_spacing, 0)
        if self.compatible:
            return diffusers_steps(count, self._betas, self.spacing)
        return self._plan(count, self.spacing, self.offset)

    def _plan(self, count: int, spacing: str, offset: int) -> Steps:
        table = self.table
        if not self.ends_noisy:
            return make_steps(count, table, spacing, offset=offset)

        def visits_the_end(steps: int) -> bool:
            return int(timesteps(steps, self.train_steps, spacing, offset=offset)[-1]) == 0

        if visits_the_end(count):
            # Of any spacing: once so many steps visit t = 0, more do. One step never does.
            most = bisect_left(range(1, count), True, key=visits_the_end)
            raise ValueError(
                f"{count} steps, spaced {spacing}, visit t = 0, where this diffusion ends (ends_noisy): nothing is "
                f"left to do there. Take {most} at most."
            )
        return make_steps(count, table, spacing, offset=offset, final=float(table[0]))

    def denoiser(self, model: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> ModelDenoiser:
        """Read a raw model that computes in `dtype` under this process."""
        return ModelDenoiser(
            model, self.table, self.prediction, self.variance, self.x0_clip, dtype, self.spare_variance
        )

    @property
    def x0_clip(self) -> X0Clip | None:
        """What is done to x0 after guidance, if anything."""
        if self.threshold is not None:
            return dynamic_threshold(*self.threshold)
        return None if self.clip_range is None else clamp_x0(self.clip_range)


def _check_choice(name: str, value: object, known: Collection[str]) -> None:
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
