"""Contact sheets: many images of one size in one."""

from collections.abc import Sequence

import torch
from torch import Tensor

PAPER = 255


def levels(images: Tensor) -> Tensor:
    """Convert images in 0..1, of any shape, to uint8 on the CPU."""
    return (images.float().clamp(0, 1).cpu() * 255).round().to(torch.uint8)


def tiled(images: Sequence[Tensor], columns: int) -> Tensor:
    """Lay images out in rows of `columns`, the first at the top left, on white.

    Args:
        images: each `[H, W, 3]` uint8, all of one size.
        columns: 1 or more.

    Returns:
        `[rows * H, columns * W, 3]` uint8.

    Raises:
        ValueError: there are no images, or they differ in size.
    """
    if len({image.shape for image in images}) != 1 or columns < 1:
        shapes = sorted({tuple(image.shape) for image in images})
        raise ValueError(f"a sheet needs images of one size and 1 column or more, not {shapes} in {columns} columns")
    height, width, _ = images[0].shape
    rows = -(-len(images) // columns)
    sheet = torch.full((rows * height, columns * width, 3), PAPER, dtype=torch.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = image
    return sheet
