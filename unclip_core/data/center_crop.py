"""The square that a picture is seen as, by training and measuring alike."""

import torch
from PIL import Image
from torch import Tensor


def middle_square(picture: Image.Image, size: int) -> Tensor:
    """The square from an RGB picture's middle at `size` px, uint8 `[size, size, 3]` (bicubic, antialiased)."""
    edge = min(picture.size)
    left, top = ((length - edge) // 2 for length in picture.size)
    # Cut first: a resize of a box would see beyond its edges.
    square = picture.crop((left, top, left + edge, top + edge))
    return levels_of(square.resize((size, size), Image.Resampling.BICUBIC))


def levels_of(picture: Image.Image) -> Tensor:
    """An RGB picture as uint8 `[H, W, 3]`."""
    flat = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return flat.view(picture.height, picture.width, 3)
