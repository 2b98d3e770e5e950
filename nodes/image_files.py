"""Image files as ComfyUI saves them: written whole or not at all, never over another file."""

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
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

NAME_BYTES = 230
"""What a file's name may have before the number; file systems take 255 bytes in all."""


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
    """Return the folder and the name's stem for a prefix such as "set/image", inside the output folder.

    Raises:
        ValueError: the prefix is empty, leaves the output folder, or no file can be called so.
    """
    _check_name(prefix)
    path = (output / prefix).resolve()
    root = output.resolve()
    if prefix.strip() in ("", ".") or path == root:
        raise ValueError("the file name prefix is empty.")
    if root not in path.parents:
        raise ValueError(f"the file name prefix {prefix!r} leaves the output folder.")
    return path.parent, path.name


def _check_name(prefix: str) -> None:
    """Refuse a prefix of which no file system makes a name, before anything is drawn for it."""
    if "\0" in prefix:
        raise ValueError("the file name prefix holds a NUL character: delete it.")
    try:
        longest = max((len(os.fsencode(part)) for part in Path(prefix).parts), default=0)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the file name prefix holds half a character at position {error.start + 1}: delete it."
        ) from error
    if longest > NAME_BYTES:
        raise ValueError(f"the file name prefix has a name of {longest} bytes; at most {NAME_BYTES} are possible.")


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
    aside = folder / f".{uuid.uuid4().hex}.part"
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
