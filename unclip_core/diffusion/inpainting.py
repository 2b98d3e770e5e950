"""Inpainting with a net that was not trained for it: known pixels replace the prediction, steps are repeated."""

import torch
from torch import Tensor

from .denoiser import Denoiser, Prediction
from .forward import add_noise
from .loop import OnStep, run_steps
from .noise import Noise
from .schedules import Steps
from .step_rules import ddim_rule

__all__ = ["InpaintDenoiser", "blend_by_mask", "repaint"]


class InpaintDenoiser:
    """A denoiser whose predicted x0 is replaced by the known clean sample where the mask says so.

    What a sampler makes of a state whose x0 is certain is that x0's own forward process: drawn from ``add_noise``,
    the known part stays a sample of q(x_t | x0) in every step, as RePaint makes it (Lugmayr et al. 2022, eq. 8a),
    and the last step of a plan that ends clean ends in the known pixels themselves. With any sampler.

    Args:
        known: `[B or 1, C, H, W]`, clean, in the net's range.
        mask: `[B or 1, 1, H, W]` in 0..1: 1 is drawn, 0 is known, and between them the prediction is blended.
    """

    def __init__(self, denoiser: Denoiser, known: Tensor, mask: Tensor) -> None:
        """Keep the parts.

        Raises:
            ValueError: a mask of another size or out of 0..1.
        """
        _check_mask(mask, known)
        self._denoiser, self._known, self._mask = denoiser, known, mask

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return the prediction with the known part put in."""
        prediction = self._denoiser(x, t)
        x0 = blend_by_mask(prediction.x0, self._known.to(x), self._mask.to(x))
        return Prediction(x0, prediction.variance_fraction)


def blend_by_mask(drawn: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """Return ``drawn`` where the mask is 1, ``known``, to the bit, where it is 0, and blends between.

    The tensors are of one shape or spread to one.
    """
    return torch.where(mask == 0, known, torch.where(mask == 1, drawn, torch.lerp(known, drawn, mask)))


def repaint(
    denoiser: Denoiser,
    x: Tensor,
    steps: Steps,
    noise: Noise,
    *,
    resamples: int = 1,
    on_step: OnStep | None = None,
) -> Tensor:
    """Return x0 by ancestral steps, each of them but the last gone over ``resamples`` times.

    RePaint (Lugmayr et al. 2022, algorithm 1, jump length 1): after a step the state is noised again by the forward
    process and the step repeated, so that what is drawn and what is known come to agree. ``resamples`` 1 is plain
    ancestral sampling, with the posterior's small variance (ddim with eta 1). The last step adds no noise (line 4 of
    the algorithm): it ends in x0 where the plan ends clean, else in the mean of x at the plan's end, as ddpm's does.

    Args:
        denoiser: a ``InpaintDenoiser``.
        x: the state at the plan's first level.
        on_step: called after each call of the net.

    Raises:
        ValueError: less than one resample.
    """
    if resamples < 1:
        raise ValueError(f"each step must be made at least once, got {resamples} resamples")
    levels = steps.alpha_bar.tolist()
    # (step of the plan, whether it is made again): each step `resamples` times, the last once.
    visits = [(i, again > 0) for i in range(len(steps) - 1) for again in range(resamples)] + [(len(steps) - 1, False)]

    def renoise(visit: int, x: Tensor) -> Tensor:
        i, again = visits[visit]
        if not again:
            return x
        # back to the step's start: q(x_s | x_t), of alpha-bar s / t
        return add_noise(x, noise.normal(x.shape[1:], x.device, x.dtype), levels[i] / levels[i + 1])

    def update(visit: int, x: Tensor, prediction: Prediction) -> Tensor:
        i, _ = visits[visit]
        c_x0, c_x, std = ddim_rule(levels[i], levels[i + 1], eta=1.0)
        mean = c_x0 * prediction.x0 + c_x * x
        return mean if visit == len(visits) - 1 else mean + std * noise.normal(x.shape[1:], x.device, x.dtype)

    times = steps.timesteps.tolist()
    return run_steps(denoiser, x, [times[i] for i, _ in visits], update, on_step, renoise)


def _check_mask(mask: Tensor, known: Tensor) -> None:
    if mask.ndim != 4 or mask.shape[1] != 1 or mask.shape[-2:] != known.shape[-2:]:
        raise ValueError(f"a mask of shape {tuple(mask.shape)} does not fit images of {tuple(known.shape)}")
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ValueError("a mask must hold numbers from 0 (known) to 1 (to be drawn), without NaN")
