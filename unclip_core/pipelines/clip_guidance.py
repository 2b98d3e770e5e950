"""Guidance toward a text by CLIP's gradient (GLIDE, Nichol et al. 2021, section 2.4)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ..clip.image_input import ImageInput
from ..diffusion.denoiser import Denoiser, Prediction, X0Clip, per_sample
from ..embedding.arithmetic import normalize
from ..models import Clip

__all__ = ["ClipGuided", "clip_logits"]

Likelihood = Callable[[Tensor], Tensor]


class ClipGuided:
    """A denoiser that leans toward images that something likes.

    GLIDE shifts the mean of a step by ``s * Sigma * grad_x (f(x) . g(c))``. As a shift of epsilon (Dhariwal & Nichol
    2021, algorithm 2), which any sampler can take, that is ``x0 += s * sigma^2 / alpha * grad_x log p(x0(x))``. CLIP
    here looks at the clean sample that the net sees in x, and the gradient runs through the net: for a CLIP that
    was trained on noised images, as GLIDE's was, it need not.

    Args:
        denoiser: must let gradients pass (see ``gradients``).
        log_likelihood: clean samples `[B, …]` -> `[B]`.
        strength: s; 1 is Bayes' rule.
        alpha_bar: `[T]` table.
        clip: applied to the shifted x0 too.
        limit: the shift's root mean square is held to this, sample by sample: at the noisiest level, where sigma^2 /
            alpha is in the thousands, a net's rounding would otherwise be all that is seen.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        log_likelihood: Likelihood,
        strength: float,
        alpha_bar: Tensor,
        clip: X0Clip | None = None,
        limit: float = 1.0,
    ) -> None:
        """Keep the parts."""
        self._denoiser, self._log_likelihood = denoiser, log_likelihood
        self._clip, self._limit = clip, limit
        ab = alpha_bar.clamp(min=1e-12)
        self._shift = strength * (1 - ab) / ab.sqrt()  # in float64 on the CPU: near 1, 1 - ab is lost to a float32

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return the prediction with x0 shifted, without its gradient."""
        with torch.enable_grad():
            state = x.detach().requires_grad_(True)
            seen = self._denoiser(state, t)
            (gradient,) = torch.autograd.grad(self._log_likelihood(seen.x0).sum(), state)
        shift = per_sample(self._shift.to(x.dtype).to(x.device)[t], x) * gradient
        size = shift.flatten(1).square().mean(dim=1).sqrt()
        x0 = seen.x0.detach() + shift * per_sample(self._limit / size.clamp(min=self._limit), x)
        fraction = seen.variance_fraction
        return Prediction(
            x0 if self._clip is None else self._clip(x0),
            fraction.detach() if isinstance(fraction, Tensor) else fraction,
        )


def clip_logits(clip: Clip, text_embeds: Tensor) -> Likelihood:
    """Return how CLIP scores images `[B, 3, H, W]` in -1..1 against texts `[B or 1, D]`, differentiably: `[B]`.

    The score is the cosine by CLIP's temperature (Radford et al. 2021, figure 3), the log-likelihood of the text up
    to a constant. Of an image that is not square CLIP sees the middle (``centre_square``).
    """
    wanted = normalize(text_embeds)

    def score(images: Tensor) -> Tensor:
        pixels = centre_square(images * 0.5 + 0.5, clip.adapter.image_size, clip.adapter.image_input)
        embeds = F.normalize(clip.adapter.encode_pixels(pixels), dim=-1)
        return clip.adapter.temperature * (embeds * wanted.to(embeds)).sum(dim=-1)

    return score


def centre_square(images: Tensor, side: int, taken: ImageInput) -> Tensor:
    """Return the middle of images `[B, 3, H, W]` in 0..1 as `[B, 3, side, side]`, differentiably.

    The shorter edge is resized to ``side`` (bicubic, antialiased) and the longer one cropped where ``taken`` crops
    images: squashed, they would be scored as what the user never sees.
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    if short != side:
        size = (side * height // short, side * width // short)
        images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    top, left = (taken.cut_first(edge - side) for edge in images.shape[-2:])
    return images[..., top : top + side, left : left + side]
