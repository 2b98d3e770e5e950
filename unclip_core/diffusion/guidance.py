"""Classifier-free guidance, once, as a wrapper of a net (Ho & Salimans 2022)."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .denoiser import host_timestep, per_sample

__all__ = ["Guided"]

Condition: TypeAlias = Mapping[str, Any] | Tensor | None
ConditionedModel = Callable[[Tensor, Tensor, Any], Tensor]


class Guided:
    """Classifier-free guidance: wraps a net (x, t, cond) -> raw output as a net (x, t) -> guided raw output.

    The guided mean is ``uncond + scale * (cond - uncond)``, both halves in one batch, the conditional first.
    It acts on the raw output's first C channels (C = those of x); where there are 2C, the variance half is
    the conditional's.

    Args:
        cond, uncond: a tensor, None or (nested) mapping of them, all with the batch first and alike in structure; an
            unconditional tensor of batch 1 serves all samples.
        scale: finite. 1 runs the conditional half only.
        interval: (low, high) fractions of t / train_steps, inclusive, in which guidance acts (Kynkäänniemi et al.
            2024); elsewhere the conditional half alone is run, if that is so for the whole batch. Unless t carries its
            timestep (`host_timestep`), any other interval than (0, 1) makes each step wait for the device once.
        rescale: 0..1, how far the guided mean's standard deviation is drawn back to the conditional's (Lin et al. 2023,
            section 3.4, eq. 15 and 16).
    """

    def __init__(
        self,
        model: ConditionedModel,
        cond: Condition,
        uncond: Condition,
        scale: float,
        interval: tuple[float, float] = (0.0, 1.0),
        rescale: float = 0.0,
        train_steps: int = 1000,
    ) -> None:
        """Check the numbers and join the conditions.

        Raises:
            ValueError: a number is out of range, or the conditions differ in structure or shape.
        """
        if not math.isfinite(scale):
            raise ValueError(f"guidance scale must be a finite number, got {scale}")
        low, high = interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"guidance interval must satisfy 0 <= low <= high <= 1, got ({low}, {high})")
        if not 0 <= rescale <= 1:
            raise ValueError(f"guidance rescale must be within 0..1, got {rescale}")
        self._model, self._cond = model, cond
        self._scale, self._rescale, self._train_steps = scale, rescale, train_steps
        self._fitting: int | None = None  # the batch that was checked last: a run has but one
        self._interval = None if (low, high) == (0, 1) else (low, high)
        self._both = None if scale == 1 else _join(cond, uncond, "condition")

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the guided raw output for x `[B, C, …]` at t `[B]`.

        Raises:
            ValueError: shapes disagree.
        """
        if len(x) != self._fitting:
            _check_batch(self._cond, len(x), "condition")
            self._fitting = len(x)
        scale = self._scale_at(x, t)
        if scale is None:
            return self._model(x, t, self._cond)
        raw = self._model(torch.cat([x, x]), torch.cat([t, t]), self._both)
        if raw.shape[1] not in (x.shape[1], 2 * x.shape[1]):
            raise ValueError(
                f"guidance of {x.shape[1]} channels needs a net with that many or twice, got {raw.shape[1]}"
            )
        # in half precision a large scale would enlarge the rounding of the difference
        cond, uncond = raw.to(torch.promote_types(raw.dtype, torch.float32)).chunk(2)
        mean, variance = cond[:, : x.shape[1]], cond[:, x.shape[1] :]
        other = uncond[:, : x.shape[1]]
        guided = self._restore_std(other + scale * (mean - other), mean)
        return torch.cat([guided, variance], dim=1)

    def _scale_at(self, x: Tensor, t: Tensor) -> Tensor | float | None:
        """Return the scale (a number, or `[B, 1, …]` where samples differ), or None where nothing is guided."""
        if self._scale == 1:
            return None
        if self._interval is None:
            return self._scale
        low, high = self._interval
        if (number := host_timestep(t)) is not None:
            return self._scale if low <= number / self._train_steps <= high else None
        position = t.to(torch.float32) / self._train_steps
        inside = (position >= low) & (position <= high)
        if not bool(inside.any()):
            return None
        return per_sample(1 + (self._scale - 1) * inside.to(x.dtype), x)

    def _restore_std(self, guided: Tensor, cond: Tensor) -> Tensor:
        """Draw the guided mean's standard deviation, sample by sample, towards the conditional's."""
        if self._rescale == 0:
            return guided
        target, std = cond.flatten(1).std(dim=1), guided.flatten(1).std(dim=1)
        ratio = torch.where(std > 0, target / std, 1.0)  # a constant has no contrast to restore
        return guided * per_sample(1 + self._rescale * (ratio - 1), guided)


def _join(cond: Any, uncond: Any, where: str) -> Any:
    """Concatenate two condition trees, leaf by leaf; ``where`` names the leaf in an error."""
    if cond is None and uncond is None:
        return None
    if isinstance(cond, Mapping) and isinstance(uncond, Mapping):
        if cond.keys() != uncond.keys():
            raise ValueError(f"{where}: keys {sorted(cond)} and unconditional keys {sorted(uncond)} differ")
        return {key: _join(cond[key], uncond[key], f"{where}.{key}") for key in cond}
    if not isinstance(cond, Tensor) or not isinstance(uncond, Tensor):
        kinds = f"{type(cond).__name__} and {type(uncond).__name__}"
        raise ValueError(f"{where}: conditional and unconditional must be of one kind, got {kinds}")
    if len(uncond) == 1:
        uncond = uncond.expand(len(cond), *uncond.shape[1:])
    if cond.shape != uncond.shape:
        raise ValueError(f"{where}: shape {tuple(cond.shape)} and unconditional {tuple(uncond.shape)} differ")
    return torch.cat([cond, uncond])


def _check_batch(cond: Condition, batch: int, where: str) -> None:
    """Raise ValueError if a tensor of the tree has another batch than the state."""
    if isinstance(cond, Mapping):
        for key, value in cond.items():
            _check_batch(value, batch, f"{where}.{key}")
    elif cond is not None and len(cond) != batch:
        raise ValueError(f"{where}: batch {len(cond)} does not fit the state's {batch}")
