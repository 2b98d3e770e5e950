"""The centre crop that training and evaluation alike apply to an image."""

import torch
from PIL import Image
from torch import Tensor


def center_crop(image: Image.Image, size: int) -> Tensor:
    """Crop an RGB image to its central square and resize that: uint8 `[size, size, 3]` (bicubic, antialiased)."""
    edge = min(image.size)
    left, top = ((length - edge) // 2 for length in image.size)
    # Cropped first: Pillow's resize with a box would filter in pixels from beyond its edges.
    square = image.crop((left, top, left + edge, top + edge))
    return levels_of(square.resize((size, size), Image.Resampling.BICUBIC))


def levels_of(image: Image.Image) -> Tensor:
    """Convert an RGB image to uint8 `[H, W, 3]`."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, 3)
