"""Pictures as tensors: crops, what nets see, and rows for sheets."""

import torch
from PIL import Image
from torch import Tensor

from ..data.center_crop import levels_of


def random_crop(picture: Image.Image, size: int, crop: int, generator: torch.Generator) -> Tensor:
    """A window of `crop` px of the picture with its shorter edge at `size` px, uint8 `[crop, crop, 3]`."""
    edge = min(picture.size)
    width, height = (max(size, round(length * size / edge)) for length in picture.size)
    left, top = (int(torch.randint(length - crop + 1, (), generator=generator)) for length in (width, height))
    across, down = picture.width / width, picture.height / height
    box = (
        left * across,
        top * down,
        min(picture.width, (left + crop) * across),
        min(picture.height, (top + crop) * down),
    )
    return levels_of(picture.resize((crop, crop), Image.Resampling.BICUBIC, box=box))


def to_net(levels: Tensor) -> Tensor:
    """uint8 `[H, W, 3]` to `[3, H, W]` in -1..1."""
    return levels.permute(2, 0, 1).float() / 127.5 - 1


def sheet(*rows: Tensor) -> Tensor:
    """Each `[B, H, W, 3]` in 0..1 as one row of a picture, uint8 `[…, …, 3]`."""
    lines = [torch.cat(list(row.float().cpu()), dim=1) for row in rows]
    return (torch.cat(lines) * 255).round().to(torch.uint8)
