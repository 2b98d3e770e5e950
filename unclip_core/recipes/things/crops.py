"""What stands on a plain ground: the ground's colour, the box of what is before it, and that box as a small picture.

The judge looks at things in their own boxes, so that it need not learn where they may stand and how large.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .vocabulary import GROUNDS

CROP = 48
"""Pixels of the pictures that the judge looks at."""
MARGIN = 0.06
"""Ground round the thing in them, of the longer side of its box."""
DIFFERENT = 40 / 255
"""How far a pixel lies from the ground's colour, at least, to be part of a thing."""
LEAST = 0.004
"""Share of a picture's pixels in a row or column of them that must be different, at least: a speck is no thing."""


@dataclass(frozen=True)
class Box:
    """Left, top, right, bottom in 0..1."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def center(self) -> tuple[float, float]:
        """x, y."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    @property
    def side(self) -> float:
        """The longer side."""
        return max(self.right - self.left, self.bottom - self.top)


def ground_color(image: Tensor) -> Tensor:
    """The median colour `[3]` of the edge of an image `[3, H, W]`."""
    edge = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
    return edge.median(dim=1).values


def nearest_ground(color: Tensor) -> int:
    """The index of the ground that a colour `[3]` in 0..1 is nearest to."""
    palette = torch.tensor(list(GROUNDS.values())) / 255
    return int((palette - color.cpu()).square().sum(dim=1).argmin())


def find_box(image: Tensor, ground: Tensor) -> Box | None:
    """The box of what differs from the ground `[3]` in an image `[3, H, W]` in 0..1; None where nothing does."""
    different = (image - ground[:, None, None]).square().sum(dim=0).sqrt() > DIFFERENT
    height, width = different.shape
    rows = (different.float().mean(dim=1) > LEAST * 4).nonzero().flatten()
    columns = (different.float().mean(dim=0) > LEAST * 4).nonzero().flatten()
    if not len(rows) or not len(columns):
        return None
    left, right = columns[0].item() / width, (columns[-1].item() + 1) / width
    return Box(left, rows[0].item() / height, right, (rows[-1].item() + 1) / height)


def cut(image: Tensor, box: Box, ground: Tensor, pixels: int = CROP) -> Tensor:
    """The box with a margin as a square `[3, pixels, pixels]`; what lies outside the image is ground."""
    _, height, width = image.shape
    side = max((box.right - box.left) * width, (box.bottom - box.top) * height) * (1 + 2 * MARGIN)
    half = max(1, round(side / 2))
    x, y = round(box.center[0] * width), round(box.center[1] * height)
    shifted = F.pad(image - ground[:, None, None], (half, half, half, half))
    square = shifted[:, y : y + 2 * half, x : x + 2 * half] + ground[:, None, None]
    sized = F.interpolate(square[None], size=(pixels, pixels), mode="bilinear", antialias=True, align_corners=False)
    return sized[0].clamp(0, 1)
