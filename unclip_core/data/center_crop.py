"""The square that an image is seen as, by training and measuring alike."""

import torch
from PIL import Image
from torch import Tensor


def center_crop(image: Image.Image, size: int) -> Tensor:
    """The square from an RGB image's middle at `size` px, uint8 `[size, size, 3]` (bicubic, antialiased)."""
    edge = min(image.size)
    left, top = ((length - edge) // 2 for length in image.size)
    # Cut first: a resize of a box would see beyond its edges.
    square = image.crop((left, top, left + edge, top + edge))
    return levels_of(square.resize((size, size), Image.Resampling.BICUBIC))


def levels_of(image: Image.Image) -> Tensor:
    """An RGB image as uint8 `[H, W, 3]`."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, 3)
