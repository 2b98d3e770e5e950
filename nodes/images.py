"""Images as ComfyUI carries them, `[B, H, W, C]` in 0..1: checks, conversion to RGB, and grids."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..unclip_core.pipelines.editing import resize_image
from . import defaults
from .inputs import InputError, check_arrived, check_int, int_widget


def check_images(images: Any) -> Tensor:
    """Return `images` `[B, H, W, C]` unchanged, if it is a batch of at least one image of at least one pixel.

    Raises:
        InputError: it is no such batch, or none at all, or holds NaN or infinity.
    """
    check_arrived(images, "image", "image")
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
        shape = list(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"An image must be a batch [B, H, W, C] of numbers from 0 to 1, not {shape}.")
    if 0 in images.shape:
        raise InputError(f"The image batch is empty: its shape is {list(images.shape)}.")
    if not bool(torch.isfinite(images).all()):
        raise InputError("The image holds NaN or infinity.")
    return images


def to_rgb(images: Any) -> Tensor:
    """Convert `images` `[B, H, W, C]` to `[B, H, W, 3]` float32 in 0..1.

    One channel is repeated; of four the last is alpha, over white; values out of 0..1 are clipped.

    Raises:
        InputError: as `check_images`, or another number of channels.
    """
    rgb = check_images(images).float().clamp(0, 1)
    channels = rgb.shape[-1]
    if channels == 1:
        return rgb.expand(-1, -1, -1, 3)
    if channels == 4:
        colour, alpha = rgb[..., :3], rgb[..., 3:]
        return colour * alpha + (1 - alpha)
    if channels != 3:
        raise InputError(f"An image has 1 (grey), 3 (RGB) or 4 (RGBA) channels, not {channels}.")
    return rgb


def square(images: Tensor, side: int) -> Tensor:
    """Resize `images` `[B, H, W, 3]` by their shorter edge and crop their centre: `[B, side, side, 3]`."""
    return filling(images, side, side)


def filling(images: Tensor, height: int, width: int) -> Tensor:
    """Resize `images` `[B, H, W, 3]` until they fill that size, and crop their centre: `[B, height, width, 3]`."""
    rows, columns = images.shape[1:3]
    if height * columns >= width * rows:
        size = height, max(width, round(columns * height / rows))
    else:
        size = max(height, round(rows * width / columns)), width
    images = resize_image(images, size)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return images[:, top : top + height, left : left + width].contiguous()


def tile(images: Tensor, columns: int = 0) -> Tensor:
    """Lay `B` images `[B, H, W, C]` out row by row as one, `[1, rows * H, columns * W, C]`.

    `columns` 0 makes the grid as square as it can be; there are never more columns than images. Empty cells are white.
    """
    count, height, width, channels = images.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    cells = images.new_ones(rows * columns, height, width, channels)
    cells[:count] = images
    grid = cells.reshape(rows, columns, height, width, channels).transpose(1, 2)
    return grid.reshape(1, rows * height, columns * width, channels)


def fitted(images: Any, like: Tensor) -> Tensor:
    """Resize `images` `[B, H, W, C]` to the height and width of the images `like`.

    Raises:
        InputError: as `check_images`.
    """
    found = check_images(images).to(like)
    if found.shape[1:3] == like.shape[1:3]:
        return found
    size = (like.shape[1], like.shape[2])
    planes = functional.interpolate(found.movedim(-1, 1), size, mode="bilinear", antialias=True)
    return planes.movedim(1, -1).clamp(0, 1)


class UnclipImageGrid:
    """Node: a batch of images to one image."""

    ID = "UnclipImageGrid"
    DISPLAY_NAME = "Image Grid (unCLIP)"
    CATEGORY = "unCLIP/image"
    DESCRIPTION = "Lays a batch of images out in a grid, row by row, as one image."
    SEARCH_ALIASES = ["contact sheet", "image grid", "tile", "collage"]
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("One image with all the others side by side; empty cells are white.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "images": ("IMAGE", {"tooltip": "The batch to lay out."}),
                "columns": int_widget(
                    defaults.COLUMNS,
                    0,
                    defaults.COLUMNS_MAX,
                    "Images in a row. 0 makes the grid as square as it can be.",
                ),
            },
            "optional": {
                name: ("IMAGE", {"tooltip": "More images, laid out behind the others and made as large as those."})
                for name in ("images_2", "images_3", "images_4")
            },
        }

    def run(
        self,
        images: Tensor,
        columns: int = defaults.COLUMNS,
        images_2: Tensor | None = None,
        images_3: Tensor | None = None,
        images_4: Tensor | None = None,
    ) -> tuple[Tensor]:
        """Lay all of the batches `[B, H, W, C]` out as `[1, H', W', C]`."""
        columns = check_int("columns", columns, 0, defaults.COLUMNS_MAX)
        first = check_images(images)
        more = [fitted(other, first) for other in (images_2, images_3, images_4) if other is not None]
        if any(other.shape[-1] != first.shape[-1] for other in more):
            first, more = to_rgb(first), [to_rgb(other) for other in more]
        return (tile(torch.cat([first, *more]), columns),)
