"""Image files as ComfyUI's own LoadImage gives them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageSequence
from torch import Tensor

from ...unclip_core.data.decoding import upright

_NO_ALPHA = (64, 64)  # the size of the empty mask that the stock node gives for opaque images
_ANIMATED = ("GIF", "PNG", "WEBP")  # all others (MPO, TIFF, AVIF …) give their first image there


def read_image(path: Path) -> tuple[Tensor, Tensor]:
    """Read an image file, turned as its EXIF says; of an animation every frame of the first one's size.

    Returns:
        The images `[B, H, W, 3]` float32 in 0..1, and the mask `[B, H, W]`, 1 where transparent; `[B, 64, 64]` of
        zeros for an opaque image.

    Raises:
        ValueError: it is no image that can be read, damaged, or larger than Pillow takes for safe.
    """
    try:
        with Image.open(path) as file:
            shown = ImageSequence.Iterator(file) if file.format in _ANIMATED else [file]
            frames = [upright(frame).copy() for frame in shown]
            frames = [frame for frame in frames if frame.size == frames[0].size]
            images = torch.stack([_channels(frame, "RGB") for frame in frames])
            return images, torch.stack([_mask(frame) for frame in frames])
    except Exception as error:  # a decoder may raise anything
        raise ValueError(f"{path} cannot be read as an image: {error or type(error).__name__}") from error


def _channels(frame: Image.Image, mode: str) -> Tensor:
    """The frame's channels `[H, W, C]` in 0..1."""
    if frame.mode.startswith("I"):  # 16-bit and 32-bit greys: Pillow would cut them off at 255
        frame = frame.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    frame = frame.convert(mode)
    data = torch.frombuffer(bytearray(frame.tobytes()), dtype=torch.uint8)
    return data.reshape(frame.height, frame.width, -1).to(torch.float32) / 255.0


def _mask(frame: Image.Image) -> Tensor:
    if "A" not in frame.getbands() and "transparency" not in frame.info:
        return torch.zeros(_NO_ALPHA)
    return 1.0 - _channels(frame, "RGBA")[..., 3]
