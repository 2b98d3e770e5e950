"""Masks as ComfyUI carries them, `[B, H, W]` in 0..1, 1 where something is to be drawn: checks and resizing."""

from typing import Any

import torch
from torch import Tensor

from ..unclip_core.pipelines.editing import resize_mask
from .inputs import InputError

SHAPE_TOLERANCE = 0.02
"""How far a mask's proportions may be from its image's: rounding of sizes, and no more."""


def check_mask(mask: Any) -> Tensor:
    """`mask` as `[B, H, W]` float32 in 0..1; a single one may come without its batch, or with a channel.

    Raises:
        InputError: it is no such mask, or holds NaN or infinity.
    """
    if not isinstance(mask, Tensor) or mask.ndim not in (2, 3, 4) or (mask.ndim == 4 and mask.shape[1] != 1):
        shape = list(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise InputError(f"A mask must be a batch [B, H, W] of numbers from 0 to 1, not {shape}.")
    if 0 in mask.shape:
        raise InputError(f"The mask is empty: its shape is {list(mask.shape)}.")
    mask = mask.float()
    low, high = torch.aminmax(mask)  # a large mask is gone through once, without a copy
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise InputError("The mask holds NaN or infinity.")
    if low < 0 or high > 1:
        mask = mask.clamp(0, 1)
    return mask[None] if mask.ndim == 2 else mask[:, 0] if mask.ndim == 4 else mask


def fit_mask(mask: Any, height: int, width: int) -> Tensor:
    """`mask` `[B, height, width]`, resized where it has the proportions of an image of that size.

    A mask of zeros fits any image: ComfyUI gives one of 64 × 64 pixels where an image has no alpha.

    Raises:
        InputError: as `check_mask`, or it was drawn on an image of other proportions.
    """
    mask = check_mask(mask)
    rows, columns = mask.shape[1:]
    if (rows, columns) == (height, width):
        return mask
    if not bool(mask.any()):
        return mask.new_zeros(len(mask), height, width)
    if abs(rows * width / (columns * height) - 1) > SHAPE_TOLERANCE:
        raise InputError(f"The mask is {columns} × {rows} pixels, the image {width} × {height}: draw it on this image.")
    return resize_mask(mask, (height, width))


def mask_report(mask: Tensor) -> tuple[list[str], str]:
    """Return warnings (of a mask that is 0 everywhere), and a line that says how much of the image is drawn."""
    warnings = [] if bool(mask.any()) else ["The mask is empty: the image stays as it is."]
    return warnings, f"Draws {float((mask > 0).float().mean()):.0%} of the image."
