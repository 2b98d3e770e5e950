"""A matrix of similarities as text and as an image."""

import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .plots import font, to_tensor

__all__ = ["heatmap", "matrix_text"]

CELL = 72
FONT_SIZE = 14
LABEL_WIDTH = 260
PAD = 8
ELLIPSIS = "..."

# Dark blue over white to dark red: the sign shows, and the numbers stay legible on both ends.
_STOPS = torch.tensor([[33, 76, 140], [146, 182, 222], [255, 255, 255], [240, 160, 130], [160, 30, 40]]) / 255


def matrix_text(matrix: Tensor, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Format a matrix `[R, C]` as a text table with numbered columns and a legend of them below.

    Raises:
        ValueError: labels and matrix do not fit.
    """
    _check(matrix, rows, columns)
    width = max(len(label) for label in rows)
    head = " " * width + "".join(f"{index + 1:>8}" for index in range(len(columns)))
    body = [
        f"{label:<{width}}" + "".join(f"{value:>8.3f}" for value in line)
        for label, line in zip(rows, matrix.tolist(), strict=True)
    ]
    return "\n".join([head, *body, "", *(f"{index + 1}: {label}" for index, label in enumerate(columns))])


def heatmap(matrix: Tensor, rows: Sequence[str], columns: Sequence[str]) -> Tensor:
    """Draw a matrix as coloured cells with their numbers: blue is negative, white 0, red positive.

    Args:
        matrix: `[R, C]`, in -1..1.
        rows: R labels, drawn at the left.
        columns: C labels, drawn below; their numbers stand at the top.

    Returns:
        `[H, W, 3]` in 0..1.

    Raises:
        ValueError: labels and matrix do not fit.
    """
    _check(matrix, rows, columns)
    height = (len(rows) + 1) * CELL + (len(columns) + 1) * (FONT_SIZE + 6)
    width = LABEL_WIDTH + max(len(columns), 3) * CELL + PAD
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(matrix.tolist()):
        _text(draw, (PAD, (row + 1.5) * CELL), rows[row], LABEL_WIDTH - 2 * PAD, "lm")
        for column, value in enumerate(line):
            _cell(draw, LABEL_WIDTH + column * CELL, (row + 1) * CELL, value)
    for column, label in enumerate(columns):
        _text(draw, (LABEL_WIDTH + (column + 0.5) * CELL, CELL - PAD), str(column + 1), CELL, "ms")
        place = (PAD, (len(rows) + 1) * CELL + (column + 1) * (FONT_SIZE + 6))
        _text(draw, place, f"{column + 1}: {label}", width - 2 * PAD, "lm")
    return to_tensor(image)


def color_of(value: float) -> tuple[int, int, int]:
    """Map a number in -1..1 to 8-bit sRGB; numbers outside are clamped."""
    place = (min(max(value, -1.0), 1.0) + 1) / 2 * (len(_STOPS) - 1)
    low = min(int(place), len(_STOPS) - 2)
    mixed = torch.lerp(_STOPS[low], _STOPS[low + 1], place - low)
    return tuple((mixed * 255).round().int().tolist())


def _check(matrix: Tensor, rows: Sequence[str], columns: Sequence[str]) -> None:
    if tuple(matrix.shape) != (len(rows), len(columns)) or not rows or not columns:
        raise ValueError(f"A matrix {list(matrix.shape)} does not fit {len(rows)} rows and {len(columns)} columns.")


def _cell(draw: ImageDraw.ImageDraw, left: int, top: int, value: float) -> None:
    color = color_of(value)
    draw.rectangle((left, top, left + CELL - 2, top + CELL - 2), fill=color)
    dark = math.sqrt(sum(each * each for each in color) / 3) < 140
    middle = (left + CELL / 2, top + CELL / 2)
    _text(draw, middle, f"{value:.2f}", CELL, "mm", "white" if dark else "black")


def _text(
    draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, room: float, anchor: str, fill: str = "black"
) -> None:
    """Draw one line of text, shortened to `room` px."""
    letters = font(FONT_SIZE)
    text = shown = " ".join(text.split())
    while draw.textlength(shown, letters) > room and len(text) > 1:
        text = text[:-1]
        shown = text + ELLIPSIS
    draw.text(place, shown, fill, letters, anchor=anchor)
