"""The forward process: the Markov chain that turns an image to noise (Ho et al. 2020, section 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .inpainting import noised
from .noise import Noise

__all__ = ["diffuse"]


def diffuse(x0: Tensor, levels: Sequence[float], noise: Noise) -> Tensor:
    """Return the states of one walk of the chain at these alpha-bars, [N, *x0.shape].

    Each state is drawn from the one before, ``q(x_t | x_s) = N(sqrt(ab_t / ab_s) x_s, (1 - ab_t / ab_s) I)``, which
    is what the chain's single steps between them amount to; so each is a draw of ``q(x_t | x0) = N(sqrt(ab_t) x0,
    (1 - ab_t) I)`` (eq. 4), and together they are a film of one and the same image.
    levels: alpha-bars in 0..1, none above the one before; 1.0 is the image itself.
    Raises ValueError for levels that are not so, for none, and an x0 with NaN or infinity.
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
            x = noised(x, level / before, noise.normal(x.shape[1:], x.device, x.dtype))
        states.append(x)
        before = level
    return torch.stack(states)
