"""Small pictures for the canvas."""

import base64
import io

import torch
from PIL import Image
from torch import Tensor

SIDE = 128  # px


def data_url(image: Tensor) -> str:
    """Return `image` `[H, W, C]` in 0..1, C 1, 3 or 4, as a small JPEG in a data URL."""
    pixels = (image.detach().to("cpu", torch.float32).clamp(0, 1) * 255).round().to(torch.uint8)
    pixels = pixels.expand(*pixels.shape[:2], 3) if pixels.shape[-1] == 1 else pixels[..., :3]
    picture = Image.fromarray(pixels.numpy())
    picture.thumbnail((SIDE, SIDE))
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
