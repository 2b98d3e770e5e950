"""One contract for all nets: state and timestep in, clean sample and variance out.

Whatever a net predicts (epsilon, the sample itself, v) and however its variance is given, a sampler sees a
``Prediction``. The state stays in the state's own dtype (float32, float64 in tests); the net may run lower.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

__all__ = [
    "Denoiser",
    "ModelDenoiser",
    "Prediction",
    "PredictionType",
    "RawModel",
    "VarianceType",
    "X0Clip",
    "clamp_x0",
    "clean_sample",
    "dynamic_threshold",
    "host_timestep",
    "with_host_timestep",
    "per_sample",
]

PredictionType = Literal["epsilon", "sample", "v_prediction"]
VarianceType = Literal["fixed_small", "fixed_small_log", "fixed_large", "learned_range"]
X0Clip = Callable[[Tensor], Tensor]
RawModel = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Prediction:
    """What a denoiser predicts at a state.

    Attributes:
        x0: the clean sample, the state's shape and dtype.
        variance_fraction: f of the ancestral step's variance, between the posterior's and the forward process's: ``log
            var = f * log(beta) + (1 - f) * log(beta_tilde)`` (Nichol & Dhariwal 2021, eq. 15). A number (0.0 is the
            fixed small variance, 1.0 the fixed large one) or a tensor of x0's shape (learned). The fraction, not the
            variance, because both betas depend on the step that the sampler takes, which a denoiser does not know.
    """

    x0: Tensor
    variance_fraction: Tensor | float = 0.0


class Denoiser(Protocol):
    """State x `[B, …]` and timesteps t `[B]` int64 in, Prediction out."""

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return the prediction for ``x`` at ``t``."""
        ...


def with_host_timestep(t: Tensor, number: int) -> Tensor:
    """Attach the timestep that all of t `[B]` holds, so that `host_timestep` need not wait for the device."""
    t.host_timestep = number
    return t


def host_timestep(t: Tensor) -> int | None:
    """The timestep that `with_host_timestep` attached to this very tensor; None for any other, copies included."""
    return getattr(t, "host_timestep", None)


class ModelDenoiser:
    """A `Denoiser` made of a net, whose raw output it turns into a `Prediction`.

    Args:
        model: (x `[B, C, …]`, t `[B]` int64) -> raw output `[B, C, …]`, or `[B, 2C, …]` with variance "learned_range"
            (the mean first, then v in -1..1).
        alpha_bar: `[T]` table.
        prediction: what the mean is.
        variance: "fixed_small" and "fixed_small_log" are the posterior's variance (they differ in their published code
            only by a floor of 1e-20), "fixed_large" is beta, "learned_range" interpolates by the net's second half.
        clip: applied to x0 (so after guidance, which acts on the raw output), or None.
        model_dtype: the net's precision; x is cast to it, and the output back to x's dtype. None: x's own.
        spare_variance: the net gives `[B, 2C, …]` although the variance is fixed: its second half is dropped.
    """

    def __init__(
        self,
        model: RawModel,
        alpha_bar: Tensor,
        prediction: PredictionType = "epsilon",
        variance: VarianceType = "fixed_small",
        clip: X0Clip | None = None,
        model_dtype: torch.dtype | None = None,
        spare_variance: bool = False,
    ) -> None:
        """Check the options.

        Raises:
            ValueError: unknown names, or tables that leave x0 undefined.
        """
        _check_choice("prediction", prediction, get_args(PredictionType))
        _check_choice("variance", variance, get_args(VarianceType))
        table = alpha_bar.to("cpu", torch.float64)
        if table.ndim != 1 or not bool(((table >= 0) & (table <= 1)).all()):
            raise ValueError(f"alpha_bar must be a vector within 0..1, got shape {tuple(table.shape)}")
        if prediction == "epsilon" and bool((table == 0).any()):
            raise ValueError("alpha_bar reaches 0, where an epsilon prediction says nothing about x0")
        self._model, self._prediction, self._variance = model, prediction, variance
        self._clip, self._model_dtype, self._spare = clip, model_dtype, spare_variance
        self._tables = {"alpha": table.sqrt(), "sigma": (1 - table).sqrt()}
        self._cast: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return x0 (clipped) and the variance fraction.

        Raises:
            ValueError: the net's output has a wrong shape.
        """
        raw = self._model(x.to(self._model_dtype or x.dtype), t).to(x.dtype)
        mean, fraction = self._split(raw, x)
        x0 = self._x0(mean, x, t)
        return Prediction(x0 if self._clip is None else self._clip(x0), fraction)

    def _split(self, raw: Tensor, x: Tensor) -> tuple[Tensor, Tensor | float]:
        """Part the raw output in mean and variance fraction."""
        learned = self._variance == "learned_range"
        channels = x.shape[1] * (2 if learned or self._spare else 1)
        if raw.shape != (x.shape[0], channels, *x.shape[2:]):
            raise ValueError(
                f"the net returned shape {tuple(raw.shape)} for a state of {tuple(x.shape)}; "
                f"variance {self._variance!r} needs {channels} channels"
            )
        if not learned:
            return raw[:, : x.shape[1]], 1.0 if self._variance == "fixed_large" else 0.0
        mean, v = raw.chunk(2, dim=1)
        return mean, (v + 1) / 2

    def _x0(self, mean: Tensor, x: Tensor, t: Tensor) -> Tensor:
        if self._prediction == "sample":
            return mean
        return clean_sample(self._prediction, mean, x, self._at("alpha", x, t), self._at("sigma", x, t))

    def _at(self, name: str, x: Tensor, t: Tensor) -> Tensor:
        """Return a table's values at t, shaped `[B, 1, …]`; a table is moved once, and nothing waits for it."""
        key = (name, x.device, x.dtype)
        if key not in self._cast:
            self._cast[key] = self._tables[name].to(x.dtype).to(x.device)
        return per_sample(self._cast[key][t], x)


def clean_sample(prediction: str, mean: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return the x0 that a net's output says: Ho et al. 2020 eq. 15 (epsilon), Salimans & Ho 2022 section 4 (v).

    Args:
        prediction: what the output is, a ``PredictionType``.
        mean: the output, without a variance.
        x: the state, of the same shape.
        alpha: sqrt of alpha-bar, of a shape that goes with x's.
        sigma: sqrt of 1 - alpha-bar, likewise.
    """
    if prediction == "sample":
        return mean
    return (x - sigma * mean) / alpha if prediction == "epsilon" else alpha * x - sigma * mean


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """Return ``values`` `[B]` reshaped to `[B, 1, …]` with as many dimensions as ``x``."""
    return values.reshape(-1, *([1] * (x.ndim - 1)))


def clamp_x0(limit: float) -> X0Clip:
    """Return a clip of x0 to -limit..limit.

    Raises:
        ValueError: the limit is not positive and finite.
    """
    if not 0 < limit < math.inf:
        raise ValueError(f"the clip range of x0 must be positive and finite, got {limit}")
    return lambda x0: x0.clamp(-limit, limit)


def dynamic_threshold(percentile: float = 0.995, max_value: float = math.inf) -> X0Clip:
    """Return Imagen's dynamic thresholding of x0 (Saharia et al. 2022, section 2.3).

    For each sample, s is that percentile of ``|x0|``, held within 1..max_value; x0 is clamped to -s..s and
    divided by s. max_value = 1 is plain clamping.

    Raises:
        ValueError: unless 0 < percentile <= 1 and max_value >= 1.
    """
    if not 0 < percentile <= 1:
        raise ValueError(f"the percentile of dynamic thresholding is a fraction in (0, 1], got {percentile}")
    if not max_value >= 1:
        raise ValueError(f"the maximum of dynamic thresholding must be 1 or more, got {max_value}")

    def clip(x0: Tensor) -> Tensor:
        s = per_sample(_quantile(x0.abs().flatten(1), percentile).clamp(1, max_value), x0)
        return torch.maximum(torch.minimum(x0, s), -s) / s

    return clip


def _quantile(values: Tensor, q: float) -> Tensor:
    """Return each row's q-quantile, linearly interpolated; torch.quantile refuses more than 2**24 values."""
    position = q * (values.shape[1] - 1)
    low = math.floor(position)
    top = values.topk(values.shape[1] - low, dim=1).values  # descending: the last is the value at `low`
    return torch.lerp(top[:, -1], top[:, max(top.shape[1] - 2, 0)], position - low)


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(known)}")
