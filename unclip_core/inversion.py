"""DDIM inversion: the noise from which a sampler draws a given picture.

"DDIM inversion" (Ramesh et al. 2022, section 3; Dhariwal & Nichol 2021, appendix F) runs deterministic DDIM
backwards. What a net says at the noisier end of a step is not known before that end is: evaluated at the cleaner
end instead, as is usual, the error is of the size of the step. Here each step is solved for its noisier end, so
that DDIM over the same plan comes back to the picture, in few steps too.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .denoiser import Denoiser
from .samplers import OnStep, StepInfo
from .schedules import Steps

__all__ = ["invert", "psnr"]


def invert(
    denoiser: Denoiser, x0: Tensor, steps: Steps, *, iterations: int = 1, on_step: OnStep | None = None
) -> Tensor:
    """Return the state at the plan's first noise level from which ``ddim`` with eta 0 draws ``x0``.

    A step of ``ddim`` from x_s (alpha-bar s) to x_t is ``x_t = a * D(x_s) + b * x_s``, D the denoiser. It is
    solved for x_s by Newton's method with a fixed slope: D's is taken to be ``sqrt(s)``, what it is where data are
    N(0, 1), so ``x_s += (x_t - a * D(x_s) - b * x_s) / (a * sqrt(s) + b)``. That converges, for data of any
    smaller variance v, by the factor ``1 - v`` or better; solving for ``D`` or for epsilon alone does not (the one
    fails where there is little noise, the other where there is little else).
    The step that ends clean is taken once: what D removes there it does not tell apart, and to iterate would pile
    that up. So what comes back is D of the state before the end, which is nearer to x0 the more steps there are.

    x0: float32 or float64 [B, …], in the net's own range. iterations: calls of the net in each of the other steps,
    1 or more.
    on_step: called after each call of the net, with x the state so far and x0 the clean sample seen in it.
    Raises ValueError for no iterations, and an x0 that is of another type or holds NaN or infinity.
    """
    if iterations < 1:
        raise ValueError(f"inversion needs at least 1 iteration a step, got {iterations}")
    if x0.dtype not in (torch.float32, torch.float64) or not bool(torch.isfinite(x0).all()):
        raise ValueError(f"inversion needs finite float32 or float64 samples, got {x0.dtype} or NaN or infinity")
    x, total, done = x0, (len(steps) - 1) * iterations + 1, 0
    for number, rule in enumerate(_rules(steps)):
        t = torch.full((len(x),), rule.time, device=x.device)
        target = x
        for _ in range(iterations if number else 1):
            seen = denoiser(x, t).x0
            x = x + (target - rule.c_x0 * seen - rule.c_x * x) / rule.slope
            if on_step is not None:
                on_step(StepInfo(done, total, rule.time, x, seen))
            done += 1
    return x


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of pictures [B, …] in 0..1, in dB, [B]; inf where they are equal.

    Raises ValueError for shapes that differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"pictures of shapes {tuple(a.shape)} and {tuple(b.shape)} cannot be compared")
    return -10 * (a.double() - b.double()).square().flatten(1).mean(dim=1).log10()


@dataclass(frozen=True)
class _Rule:
    """DDIM's step ``x_t = c_x0 * D(x_s, time) + c_x * x_s``, and the slope of that in x_s for data of N(0, 1)."""

    time: int
    c_x0: float
    c_x: float
    slope: float


def _rules(steps: Steps) -> Iterator[_Rule]:
    """Yield the plan's steps, from the clean end to the noisy one."""
    levels, times = steps.alpha_bar.tolist(), steps.timesteps.tolist()
    for time, s, t in reversed(list(zip(times, levels[:-1], levels[1:], strict=True))):
        c_x = math.sqrt((1 - t) / (1 - s))
        c_x0 = math.sqrt(t) - math.sqrt(s) * c_x
        yield _Rule(time, c_x0, c_x, c_x0 * math.sqrt(s) + c_x)
