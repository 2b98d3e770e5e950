"""What CLIP's ascent changes to change an image: its pixels, or the latents of an image codec."""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..diffusion.noise import Noise
from ..models import ImageCodec

COARSEST = 4
GREY_LIMIT = 0.02  # a start's pixels are kept this far from 0 and 1, where the sigmoid would hold them
START_STD = 0.5


class Climbed(Protocol):
    """Tensors that are learned, and the images that they make."""

    learned: list[Tensor]
    """What the optimizer changes, each with a batch."""

    def render(self) -> Tensor:
        """The images `[B, 3, H, W]` in 0..1, differentiable."""
        ...

    def settle(self) -> None:
        """Put what a step has changed back to where it may be."""
        ...


class Pixels:
    """The logits of an image's pixels, as a pyramid of which the coarse levels move large areas at once."""

    def __init__(
        self, start: Tensor | None, count: int, size: tuple[int, int], noise: Noise, device: torch.device
    ) -> None:
        """Begin with images `[count, 3, H, W]` in 0..1, or with noise of that `size` (height, width)."""
        sizes = [size]
        while min(sizes[0]) >= 2 * COARSEST:
            sizes.insert(0, (sizes[0][0] // 2, sizes[0][1] // 2))
        if start is None:
            self._base, std = torch.zeros(count, 3, *size, device=device), START_STD / len(sizes) ** 0.5
            levels = [std * noise.normal((3, *edges), device=device) for edges in sizes]
        else:
            self._base = torch.logit(start.to(device).float(), eps=GREY_LIMIT)
            levels = [torch.zeros(count, 3, *edges, device=device) for edges in sizes]
        self.learned = [level.requires_grad_(True) for level in levels]

    def render(self) -> Tensor:
        """The images `[B, 3, H, W]` in 0..1 that base and levels make."""
        size = self._base.shape[-2:]
        layers = [F.interpolate(level, size, mode="bilinear", align_corners=False) for level in self.learned]
        return torch.sigmoid(self._base + sum(layers))

    def settle(self) -> None:
        """Any logit is a pixel."""


class Latents:
    """The latents of an image codec, drawn as its codebook has them, as VQGAN+CLIP climbs in VQGAN's.

    The gradient passes the codebook, and the limits of 0 and 1, as if they were not there; the latents themselves stay
    within the codebook's range, from where every code can be reached.
    """

    def __init__(
        self,
        codec: ImageCodec,
        start: Tensor | None,
        count: int,
        size: tuple[int, int],
        noise: Noise,
        device: torch.device,
    ) -> None:
        """Begin with images `[count, 3, H, W]` in 0..1, or with noise for images of that `size` (height, width).

        The images are rendered to the `device`; the latents stay with the codec.
        """
        self._codec, self._size, self._seen_on = codec, size, device
        if codec.module is not None:
            device = next(codec.module.parameters()).device
        limits = codec.limits
        self._limits = None if limits is None else tuple(edge.to(device)[:, None, None] for edge in limits)
        rows, columns = (-(-side // codec.factor) for side in size)
        if start is None:
            latents = noise.normal((codec.channels, rows, columns), device=device)
        else:
            beyond = (0, columns * codec.factor - size[1], 0, rows * codec.factor - size[0])
            with torch.no_grad():
                latents = codec.encode(F.pad(start.to(device).float(), beyond, mode="replicate") * 2 - 1).float()
        self.learned = [latents.clone().requires_grad_(True)]
        self.settle()

    def render(self) -> Tensor:
        """The images `[B, 3, H, W]` in 0..1 that the codes of the latents make."""
        images = self._codec.decode(self._codec.quantised(self.learned[0])).float() * 0.5 + 0.5
        images = images[..., : self._size[0], : self._size[1]]
        return (images + (images.clamp(0, 1) - images).detach()).to(self._seen_on)

    @torch.no_grad()
    def settle(self) -> None:
        """Clamp the latents to the codebook's range, channel by channel."""
        if self._limits is not None:
            self.learned[0].copy_(self.learned[0].clamp(*self._limits))
