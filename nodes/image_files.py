"""Image files: read into ComfyUI's image tensors, written whole or not at all, never over another file."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

_NO_ALPHA = (64, 64)  # the size of the empty mask that the stock LoadImage gives for opaque images


class SaveError(OSError):
    """An image that could not be written, and why."""


def png_bytes(image: Tensor, text: Mapping[str, Any]) -> bytes:
    """One image as PNG.

    image: [H, W, C] float 0..1, C 1, 3 or 4; values outside are clipped, and the fraction is cut off as in
    ComfyUI's SaveImage, so that both give the same pixels. text: stored as JSON in text chunks, by name.
    """
    pixels = (image.detach().to("cpu", torch.float32) * 255.0).clamp(0, 255).to(torch.uint8)
    if pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    info = PngInfo()
    for name, value in text.items():
        info.add_text(name, json.dumps(value))
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, format="PNG", pnginfo=info, compress_level=4)
    return buffer.getvalue()


def expand_prefix(prefix: str, width: int, height: int, now: time.struct_time) -> str:
    """ComfyUI's variables in a file name prefix: %width%, %height%, %year%, %month%, %day%, %hour% …"""
    values = {
        "width": str(width),
        "height": str(height),
        "year": str(now.tm_year),
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    return re.sub("%(" + "|".join(values) + ")%", lambda found: values[found[1]], prefix)


def target(output: Path, prefix: str) -> tuple[Path, str]:
    """The folder and the name's stem for a prefix such as "set/image", inside the output folder.

    Raises ValueError for an empty prefix and for one that leaves the output folder.
    """
    path = (output / prefix).resolve()
    root = output.resolve()
    if prefix.strip() in ("", ".") or path == root:
        raise ValueError("the file name prefix is empty.")
    if root not in path.parents:
        raise ValueError(f"the file name prefix {prefix!r} leaves the output folder.")
    return path.parent, path.name


def next_number(folder: Path, stem: str) -> int:
    """One more than the highest number among `<stem>_<number>…` in a folder; 1 where there is none."""
    numbered = re.compile(re.escape(stem) + r"_(\d+)[_.]")
    numbers = [int(found[1]) for entry in os.listdir(folder) if (found := numbered.match(entry))]
    return max(numbers, default=0) + 1


def write_numbered(data: bytes, folder: Path, stem: str, number: int) -> tuple[Path, int]:
    """Write `<stem>_<number>_.png`, or the next number that is free; returns the path and that number.

    The data goes to a file aside first, onto the disk, and is then renamed: an image is there whole, or not
    at all. Raises SaveError where it cannot be written; nothing is left behind.
    """
    aside = folder / f".{stem}.{uuid.uuid4().hex}.part"
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        while True:
            path = folder / f"{stem}_{number:05}_.png"
            try:
                path.open("xb").close()  # takes the name, even against another process
            except FileExistsError:
                number += 1
                continue
            try:
                os.replace(aside, path)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            return path, number
    except OSError as error:
        raise SaveError(error.errno, _reason(error, folder, stem)) from error
    finally:
        aside.unlink(missing_ok=True)


def _reason(error: OSError, folder: Path, stem: str) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk is full: {stem} was not written to {folder}. Free space, or take another --output."
    return f"{stem} was not written to {folder}: {error.strerror or error}."


def read_image(path: Path) -> tuple[Tensor, Tensor]:
    """An image file as ComfyUI's LoadImage gives it: every frame of the first one's size.

    Returns image [B, H, W, 3] float32 0..1 and mask [B, H, W], 1 where transparent ([B, 64, 64] of zeros for
    an opaque image). Raises ValueError for a file that is no image.
    """
    try:
        with Image.open(path) as file:
            frames = [ImageOps.exif_transpose(frame) for frame in ImageSequence.Iterator(file)]
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    frames = [frame for frame in frames if frame.size == frames[0].size]
    images = torch.stack([_channels(frame, "RGB") for frame in frames])
    return images, torch.stack([_mask(frame) for frame in frames])


def _channels(frame: Image.Image, mode: str) -> Tensor:
    if frame.mode.startswith("I"):  # 16-bit and 32-bit greys: Pillow would cut them off at 255
        frame = frame.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    frame = frame.convert(mode)
    data = torch.frombuffer(bytearray(frame.tobytes()), dtype=torch.uint8)
    return data.reshape(frame.height, frame.width, -1).to(torch.float32) / 255.0


def _mask(frame: Image.Image) -> Tensor:
    if "A" not in frame.getbands() and "transparency" not in frame.info:
        return torch.zeros(_NO_ALPHA)
    return 1.0 - _channels(frame, "RGBA")[..., 3]
