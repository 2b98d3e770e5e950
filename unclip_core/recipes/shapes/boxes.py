"""Where the things of scenes are, for decoders with canvases: boxes, the losses on them, and foreground weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...nets.frames import RADIUS, paste
from ...world.scenes import Scene
from .attributes import LAYOUT_RADIUS, attribute_targets


class CanvasReader(nn.Module):
    """Reads pixels off canvases `[B, K, C, n, n]` laid over boxes `[B, K, 3]`: `[B, 3, size, size]`, float32."""

    def __init__(self, channels: int, patch: int) -> None:
        """One linear layer from canvas cells to patches of `patch` px squared."""
        super().__init__()
        self.patch = patch
        self.pixels = nn.Conv2d(channels, 3 * patch**2, 1, bias=False)

    def forward(self, boxes: Tensor, canvases: Tensor, size: int) -> Tensor:
        """Paste the canvases into an image of `size` px and read its pixels."""
        return F.pixel_shuffle(self.pixels(paste(boxes, canvases, size // self.patch)), self.patch).float()


def true_boxes(scenes: Sequence[Scene], count: int) -> tuple[Tensor, Tensor]:
    """Boxes `[B, count, 3]` (x, y, radius, as fractions of the width) of the things in reading order, and which of
    them `[B, count]` have a thing; a box without one lies in the middle.
    """
    _, layout, present = attribute_targets(scenes)
    boxes = layout.view(len(scenes), -1, 3) / torch.tensor([1.0, 1.0, LAYOUT_RADIUS])
    there = present.view_as(boxes)[..., 0].bool()
    boxes = torch.where(there[..., None], boxes, torch.tensor([0.5, 0.5, RADIUS]))
    return boxes[:, :count], there[:, :count]


def layout_loss(boxes: Tensor, wanted: Tensor, present: Tensor, dropped: Tensor) -> Tensor:
    """Mean squared distance of boxes `[B, K, 3]` from the true ones, in tenths of the width.

    Boxes without a thing (`present` `[B, K]`), and those of samples whose embedding is `dropped` `[B]`, do not count.
    """
    counted = (present & ~dropped[:, None])[..., None].expand_as(boxes)
    squared = (10 * (boxes - wanted)).square()
    return (squared * counted).sum() / counted.sum().clamp(min=1)


def foreground_weight(images: Tensor, gain: float = 4.0) -> Tensor:
    """Weights `[B, 1, H, W]` of mean 1 that raise what differs from the corner, and 3 px round it, by 1 + `gain`.

    A small thing covers 3 % of the image; unweighted, its shape hardly counts.
    """
    differs = (images - images[:, :, :1, :1]).abs().amax(dim=1, keepdim=True) > 0.1
    near = F.max_pool2d(differs.float(), 7, stride=1, padding=3)
    weight = 1 + gain * near
    return weight / weight.mean(dim=(1, 2, 3), keepdim=True)
