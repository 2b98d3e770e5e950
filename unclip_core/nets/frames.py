"""Frames: objects that a conditioner places, each a canvas of features at a box of the image."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .linear import Linear

SPAN = 1.3
"""Half a canvas's side, in radii of its frame: it reaches a little over what it shows."""

RADIUS = 0.15
"""Radius of a frame at the start, as a fraction of the image's width."""


class Frames(nn.Module):
    """Embeddings `[B, width]` → boxes `[B, K, 3]`; h `[B, hidden]` → canvases `[B, K, C, n, n]`.

    A box is (x, y, radius) as fractions of the image's width. So appearance is learned once, in a frame's own
    coordinates, and not for each place and size (as in spatial transformers, Jaderberg et al. 2015, section 3, and
    attend-infer-repeat, Eslami et al. 2016, section 2.1, there to read images).
    """

    def __init__(self, width: int, hidden: int, count: int, channels: int, side: int) -> None:
        """One linear layer for the boxes and one for the canvases."""
        super().__init__()
        self.shape = (count, channels, side, side)
        self.boxes = Linear(width, 3 * count)
        self.canvases = Linear(hidden, count * channels * side * side)

    def forward(self, embeds: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes in float32, and canvases."""
        offset, radius = self.boxes(embeds).float().unflatten(1, (-1, 3)).split([2, 1], dim=2)
        boxes = torch.cat([0.5 + offset, RADIUS * radius.clamp(-3, 2).exp()], dim=2)
        return boxes, self.canvases(h).unflatten(1, self.shape)


def paste(boxes: Tensor, canvases: Tensor, size: int) -> Tensor:
    """Paste canvases into a map at their boxes, and sum them.

    Values are interpolated linearly along each axis; where a map's cells are wider than a canvas's, averaged.

    Args:
        boxes: `[B, K, 3]`.
        canvases: `[B, K, C, n, n]`.
        size: side of the map.

    Returns:
        `[B, C, size, size]`.
    """
    x, y, radius = boxes.unbind(2)
    rows, columns = (_weights(middle, radius, canvases.shape[-1], size).to(canvases.dtype) for middle in (y, x))
    laid = rows[:, :, None] @ canvases @ columns[:, :, None].mT
    return laid.sum(dim=1)


def _weights(middle: Tensor, radius: Tensor, side: int, size: int) -> Tensor:
    """How much of each of `side` canvas cells each of `size` map cells shows: `[B, K, size, side]`."""
    cells = (torch.arange(size, device=middle.device) + 0.5) / size
    reach = SPAN * radius[..., None]
    at = ((cells - middle[..., None]) / reach + 1) * (side / 2) - 0.5
    width = (side / (2 * size * reach)).clamp(min=1)[..., None]
    distance = (at[..., None] - torch.arange(side, device=middle.device)).abs()
    return F.relu(1 - distance / width) / width
