"""DDIM inversion: the noise from which a sampler draws a given image.

"DDIM inversion" (Ramesh et al. 2022, section 3; Dhariwal & Nichol 2021, appendix F) runs deterministic DDIM
backwards. What a net says at the noisier end of a step is not known before that end is: evaluated at the cleaner
end instead, as is usual, the error is of the size of the step. Here each step is solved for its noisier end, so
that DDIM over the same plan comes back to the image, in few steps too.

The last step's x0 is what the net predicts from the nearly clean image. A net that predicts epsilon or v is exact
there; one that predicts x0 is not, and no starting noise corrects its error, in however many steps. So inversion
measures that error (``clean_error``), and inversion and sampling both use a denoiser that accounts for it
(``ErrorAware``).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Denoiser, Prediction, per_sample
from .loop import OnStep, run_steps
from .samplers import spec_of
from .schedules import Steps
from .step_rules import ddim_rule

__all__ = ["ErrorAware", "Inverted", "clean_error", "invert", "start_noise_share", "psnr"]


@dataclass(frozen=True)
class Inverted:
    """What inversion finds of images.

    Attributes:
        noise: `[B, …]`, the state that a sampler starts from.
        error: `[B]`, of the net, as ``clean_error`` measures it.
    """

    noise: Tensor
    error: Tensor


class ErrorAware:
    """A denoiser that blends its prediction of x0 with x_t / alpha, each weighed by the inverse of its variance.

    Around the prediction D the clean sample is taken to be N(D, error^2); seen through ``x = alpha x0 + sigma z`` its
    mean is ``D + w (x / alpha - D)`` with ``w = error^2 alpha^2 / (error^2 alpha^2 + sigma^2)`` (Bayes' rule for two
    normals). Without noise that is the state itself, as of a net that predicts epsilon; with much noise it is D.
    So details that the net misses stay in the state, at the scale of the noise, and are part of the result, the more
    so the less noise the last step starts from. From a random start instead of one found by ``invert`` they would be
    grain: use ``error`` 0 there, which leaves the denoiser as it is.

    Args:
        error: `[B or 1]`, 0 or more, on the state's device.
        alpha_bar: `[T]` table, below 1.
    """

    def __init__(self, denoiser: Denoiser, alpha_bar: Tensor, error: Tensor) -> None:
        """Keep the parts."""
        self._denoiser, self._variance = denoiser, error.square()
        self._alpha_bar, self._noise = (part.to(error.dtype).to(error.device) for part in (alpha_bar, 1 - alpha_bar))

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return the prediction with the blended x0."""
        prediction, ab = self._denoiser(x, t), self._alpha_bar[t]
        known = self._variance * ab
        total = known + self._noise[t]
        x0 = (
            per_sample(self._noise[t] / total, x) * prediction.x0
            + per_sample(self._variance * ab.sqrt() / total, x) * x
        )
        return Prediction(x0.to(x.dtype), prediction.variance_fraction)


def clean_error(denoiser: Denoiser, x0: Tensor) -> Tensor:
    """Return the root mean square error [B] of the denoiser's prediction for clean samples [B, …], shown at t = 0."""
    prediction = denoiser(x0, torch.zeros(len(x0), dtype=torch.int64, device=x0.device)).x0
    return (prediction - x0).square().flatten(1).mean(dim=1).sqrt()


def start_noise_share(sampler: str, steps: Steps, eta: float) -> float:
    """Return how much of the noise before the last step is still the start's, as a share of the variance, 0..1.

    All of it where a sampler draws none; each step of ``ddim`` draws ``eta^2 (1 - s / t) / (1 - s)`` of it anew
    (Song et al. 2021, eq. 16; alpha-bars s to t). Of samplers that draw in each step it is taken to be none.

    Raises:
        ValueError: an unknown sampler.
    """
    spec = spec_of(sampler)
    if spec.stochastic or not spec.uses_eta:
        return 0.0 if spec.stochastic else 1.0
    s, t = steps.alpha_bar[:-2], steps.alpha_bar[1:-1]
    return float((1 - eta**2 * (1 - s / t) / (1 - s)).prod())


def invert(
    denoiser: Denoiser, x0: Tensor, steps: Steps, *, iterations: int = 1, on_step: OnStep | None = None
) -> Tensor:
    """Return the state at the plan's first noise level from which ``ddim`` with eta 0 draws ``x0``.

    A step of ``ddim`` from x_s (alpha-bar s) to x_t is ``x_t = a * D(x_s) + b * x_s``, D the denoiser. It is
    solved for x_s by Newton's method with a fixed slope: D's is taken to be ``sqrt(s)``, what it is where data are
    N(0, 1), so ``x_s += (x_t - a * D(x_s) - b * x_s) / (a * sqrt(s) + b)``. That converges, for data of any
    smaller variance v, by the factor ``1 - v`` or better; solving for ``D`` or for epsilon alone does not (the one
    fails where there is little noise, the other where there is little else).
    The step that ends clean is evaluated once: D there discards detail that iterating would accumulate in x. So
    sampling returns D of the state before the end, which is nearer to x0 the more steps there are.

    Args:
        x0: float32 or float64 `[B, …]`, in the net's own range.
        iterations: calls of the net in each of the other steps, 1 or more.
        on_step: called after each call of the net, with x the state so far and x0 the clean sample seen in it.

    Raises:
        ValueError: no iterations, or an x0 that is of another type or holds NaN or infinity.
    """
    if iterations < 1:
        raise ValueError(f"inversion needs at least 1 iteration a step, got {iterations}")
    if x0.dtype not in (torch.float32, torch.float64) or not bool(torch.isfinite(x0).all()):
        raise ValueError(f"inversion needs finite float32 or float64 samples, got {x0.dtype} or NaN or infinity")
    levels, times = steps.alpha_bar.tolist(), steps.timesteps.tolist()
    last = len(steps) - 1
    visits = [last] + [i for i in reversed(range(last)) for _ in range(iterations)]
    target, solved = x0, last

    def update(visit: int, x: Tensor, prediction: Prediction) -> Tensor:
        nonlocal target, solved
        i = visits[visit]
        if i != solved:
            target, solved = x, i
        s, t = levels[i], levels[i + 1]
        c_x0, c_x, _ = ddim_rule(s, t, eta=0.0)
        slope = c_x0 * math.sqrt(s) + c_x
        return x + (target - c_x0 * prediction.x0 - c_x * x) / slope

    return run_steps(denoiser, x0, [times[i] for i in visits], update, on_step)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of images `[B, …]` in 0..1, in dB, `[B]` on the CPU; inf for equal ones.

    Raises:
        ValueError: shapes that differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"images of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared")
    # To the CPU first: there are devices without float64.
    return -10 * (a.cpu().double() - b.cpu().double()).square().flatten(1).mean(dim=1).log10()
