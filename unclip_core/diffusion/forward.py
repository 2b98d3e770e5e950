"""The forward process: the Markov chain that turns an image to noise (Ho et al. 2020, section 2)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .denoiser import per_sample
from .noise import Noise

__all__ = ["add_noise", "diffuse"]


def add_noise(x0: Tensor, noise: Tensor, alpha_bar: Tensor | float) -> Tensor:
    """Draw ``x_t = sqrt(ab) x0 + sqrt(1 - ab) noise`` from q(x_t | x0) (Ho et al. 2020, eq. 4).

    With a ratio of alpha-bars ``ab_t / ab_s`` in place of ``ab`` it draws from q(x_t | x_s), eq. 2 over many steps.

    Args:
        x0: clean samples `[B, …]`.
        noise: standard normal noise of the same shape.
        alpha_bar: in 0..1; one number for all samples, or a tensor `[B]` of one each.

    Returns:
        The noisy samples, `[B, …]`.
    """
    if isinstance(alpha_bar, Tensor):
        ab = per_sample(alpha_bar, x0)
        return ab.sqrt() * x0 + (1 - ab).sqrt() * noise
    return math.sqrt(alpha_bar) * x0 + math.sqrt(1 - alpha_bar) * noise


def diffuse(x0: Tensor, levels: Sequence[float], noise: Noise) -> Tensor:
    """Walk the chain once through these noise levels.

    Each state is drawn from the one before, ``q(x_t | x_s) = N(sqrt(ab_t / ab_s) x_s, (1 - ab_t / ab_s) I)``, which
    is what the chain's single steps between them amount to; so each is a draw of q(x_t | x0) (eq. 4), and together
    they show one and the same image getting noisier.

    Args:
        x0: clean images `[B, C, H, W]`.
        levels: alpha-bars in 0..1, none above the one before; 1.0 is the image itself.
        noise: where the steps draw from.

    Returns:
        The states at the levels, `[N, *x0.shape]`.

    Raises:
        ValueError: no levels, levels out of range or rising, or an x0 with NaN or infinity.
    """
    if not levels:
        raise ValueError("there is no noise level to go to: give at least one")
    if not all(0 <= low <= high <= 1 for high, low in zip([1.0, *levels], levels, strict=False)):
        raise ValueError(f"alpha-bars must lie in 0..1 and never rise, got {list(levels)}")
    if not bool(torch.isfinite(x0).all()):
        raise ValueError("the images hold NaN or infinity")
    states, x, before = [], x0, 1.0
    for level in levels:
        if level < before:
            x = add_noise(x, noise.normal(x.shape[1:], x.device, x.dtype), level / before)
        states.append(x)
        before = level
    return torch.stack(states)
