"""Images by gradient ascent of CLIP's similarity: no diffusion, only CLIP, and pixels or the latents of a codec.

The way of VQGAN+CLIP (Crowson et al. 2022, "VQGAN-CLIP", section 3): what CLIP sees are random cutouts of the
image, so that it must like all of it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.loop import OnStep, StepInfo
from ..diffusion.noise import Noise
from ..embedding.arithmetic import normalize
from ..models import PIXELS, Clip, ImageCodec
from .climbed import Climbed, Latents, Pixels

__all__ = ["Ascent", "ascend", "cutouts"]


@dataclass(frozen=True)
class Ascent:
    """How to climb.

    Attributes:
        steps: 1 or more.
        learning_rate: of Adam, on the logits of the pixels or on the latents, > 0.
        cutouts: images that CLIP sees a step, 1 or more.
        smoothness: weight of the total variation against the similarity, 0 or more.
        smallest_cut: share of the shorter edge that a cutout covers at least, in (0, 1].
        jitter: standard deviation of the noise on a cutout's pixels, which are in 0..1.

    Raises:
        ValueError: numbers out of range.
    """

    steps: int = 100
    learning_rate: float = 0.05
    cutouts: int = 16
    smoothness: float = 0.5
    smallest_cut: float = 0.6
    jitter: float = 0.03

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.steps < 1 or self.cutouts < 1:
            raise ValueError(f"an ascent needs 1 step and 1 cutout or more, got {self.steps} and {self.cutouts}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"the learning rate must be positive and finite, got {self.learning_rate}")
        if not (0 <= self.smoothness < float("inf") and 0 <= self.jitter < float("inf")):
            raise ValueError(f"smoothness and jitter must be 0 or more, got {self.smoothness} and {self.jitter}")
        if not 0 < self.smallest_cut <= 1:
            raise ValueError(f"a cutout covers a share in (0, 1] of the edge, got {self.smallest_cut}")


def ascend(
    clip: Clip,
    text_embeds: Tensor,
    start: Tensor | None,
    size: tuple[int, int],
    ascent: Ascent,
    noise: Noise,
    *,
    codec: ImageCodec = PIXELS,
    on_step: OnStep | None = None,
) -> Tensor:
    """Return images `[B, 3, H, W]` in 0..1 that CLIP finds like their texts `[B, D]`.

    Gradients must be on (see ``enable_gradients``). Each sample has its own noise and climbs on its own.

    Args:
        start: images `[B, 3, H, W]` in 0..1 to begin with, or None for noise of that ``size`` (height, width).
        codec: whose latents are changed, in place of pixels.
        on_step: called after each step, with the images in -1..1 that it began with as x and x0.
    """
    begin = (start, len(text_embeds), size, noise, text_embeds.device)
    climbed: Climbed = Pixels(*begin) if codec is PIXELS else Latents(codec, *begin)
    optimizer = torch.optim.Adam(climbed.learned, lr=ascent.learning_rate)
    wanted = normalize(text_embeds)
    for index in range(ascent.steps):
        images = climbed.render()
        loss = -_similarity(clip, images, wanted, ascent, noise) + ascent.smoothness * _variation(images)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        climbed.settle()
        if on_step is not None:
            shown = images.detach() * 2 - 1
            on_step(StepInfo(index, ascent.steps, index, shown, shown))
    with torch.no_grad():
        return climbed.render()


def cutouts(images: Tensor, side: int, ascent: Ascent, noise: Noise) -> Tensor:
    """Return random square cutouts of images `[B, 3, H, W]` at CLIP's size, `[B * cutouts, 3, side, side]`.

    Size and place are uniform, drawn for each sample from its own noise. Differentiable.
    """
    height, width = images.shape[-2:]
    uniform = torch.special.ndtr(noise.normal((ascent.cutouts, 3), dtype=torch.float64)).tolist()
    cuts = []
    for image, own in zip(images, uniform, strict=True):
        for share, down, right in own:
            edge = max(1, round(min(height, width) * (ascent.smallest_cut + share * (1 - ascent.smallest_cut))))
            top, left = int(down * (height - edge + 1)), int(right * (width - edge + 1))
            cut = image[None, :, top : top + edge, left : left + edge]
            cuts.append(F.interpolate(cut, (side, side), mode="bilinear", align_corners=False, antialias=True))
    grain = noise.normal((ascent.cutouts, 3, side, side), device=images.device).flatten(0, 1)
    return torch.cat(cuts) + ascent.jitter * grain


def _similarity(clip: Clip, images: Tensor, wanted: Tensor, ascent: Ascent, noise: Noise) -> Tensor:
    """The mean cosine of each image's cutouts with its text, `[B]`."""
    seen = cutouts(images, clip.adapter.image_size, ascent, noise)
    embeds = F.normalize(clip.adapter.encode_pixels(seen), dim=-1)
    return (embeds.view(len(images), ascent.cutouts, -1) * wanted[:, None]).sum(dim=-1).mean(dim=1)


def _variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels, `[B]`."""
    down, across = images.diff(dim=-2).abs(), images.diff(dim=-1).abs()
    return sum(d.flatten(1).mean(dim=1) if d.numel() else images.new_zeros(len(images)) for d in (down, across))
