"""A perceptual loss: how far the image that a decoder predicts is from the true one in the eyes of CLIP."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..clip.adapter import ClipAdapter
from ..weights.computing import dtype_for


class PerceptualLoss(nn.Module):
    """Distance of the features of two images' patches, in the blocks of a vision transformer that is not trained.

    The squared error alone is least at the mean of all images that a noisy one may have been; features tell a blur of
    several from any of them (Johnson et al. 2016, section 3.2; of diffusion's own prediction Lin & Yang 2023).
    """

    def __init__(self, clip: ClipAdapter) -> None:
        """Take the image tower of `clip`.

        Raises:
            ValueError: it is no vision transformer of open_clip's, whose blocks could be read.
        """
        super().__init__()
        visual: Any = getattr(clip.model, "visual", None)
        blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
        if not blocks:
            raise ValueError("loss.perceptual needs the base's CLIP to have a vision transformer of open_clip's.")
        self.tower = visual.requires_grad_(False)
        self._size = clip.image_size
        mean, std = (torch.tensor(value)[:, None, None] for value in (clip.image_input.mean, clip.image_input.std))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def forward(self, predicted: Tensor, true: Tensor) -> Tensor:
        """Distances `[B]` of images `[B, 3, H, W]` in -1..1: 0 for equal ones, 1 where features have nothing in common.

        Of every block, patches' features are compared as directions: half the squared distance of unit vectors.
        """
        with torch.no_grad():
            wanted = self.features(true)
        pairs = zip(self.features(predicted), wanted, strict=True)
        likeness = [F.cosine_similarity(a.float(), b.float(), dim=-1).mean(dim=1) for a, b in pairs]
        return 1 - torch.stack(likeness).mean(dim=0)

    def features(self, images: Tensor) -> list[Tensor]:
        """The patches' features `[B, P, W]` after each block."""
        found: list[Tensor] = []
        hooks = [block.register_forward_hook(_keeping(found)) for block in self.tower.transformer.resblocks]
        try:
            self.tower(self._as_read(images))
        finally:
            for hook in hooks:
                hook.remove()
        return [states[:, 1:] for states in found]

    def _as_read(self, images: Tensor) -> Tensor:
        pixels = (images.float() + 1) / 2
        if images.shape[-1] != self._size:
            pixels = F.interpolate(pixels, size=(self._size, self._size), mode="bicubic", antialias=True)
        return ((pixels - self.mean.float()) / self.std.float()).to(dtype_for(next(self.tower.parameters())))


def _keeping(found: list[Tensor]) -> Any:
    def keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
        found.append(output)

    return keep
