"""Images as tensors: random crops, and what nets take."""

import torch
from PIL import Image
from torch import Tensor

from ..data.center_crop import levels_of


def random_crop(image: Image.Image, size: int, crop: int, generator: torch.Generator) -> Tensor:
    """A window of `crop` px of the image with its shorter edge at `size` px, uint8 `[crop, crop, 3]`."""
    edge = min(image.size)
    width, height = (max(size, round(length * size / edge)) for length in image.size)
    left, top = (int(torch.randint(length - crop + 1, (), generator=generator)) for length in (width, height))
    across, down = image.width / width, image.height / height
    box = (
        left * across,
        top * down,
        min(image.width, (left + crop) * across),
        min(image.height, (top + crop) * down),
    )
    return levels_of(image.resize((crop, crop), Image.Resampling.BICUBIC, box=box))


def to_net(levels: Tensor) -> Tensor:
    """uint8 `[H, W, 3]` to `[3, H, W]` in -1..1."""
    return levels.permute(2, 0, 1).float() / 127.5 - 1
