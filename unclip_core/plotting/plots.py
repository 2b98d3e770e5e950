"""Line plots drawn with Pillow."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

__all__ = ["Curve", "captions", "font", "plot", "to_tensor"]

INK, GRID, PAPER = (40, 40, 40), (225, 225, 225), (255, 255, 255)
LEFT, TOP, RIGHT, BOTTOM = 64, 34, 18, 44
TEXT = 13


@dataclass(frozen=True)
class Curve:
    """A line through points.

    Attributes:
        name: for the legend.
        x, y: coordinates, as many of each; a point with an infinite or NaN y is left out.
        colour: RGB, 0..255.
        marks: indices of the points that get a dot.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: tuple[int, int, int] = (31, 119, 180)
    marks: Sequence[int] = ()


def plot(
    curves: Sequence[Curve],
    *,
    title: str,
    x_label: str,
    y_range: tuple[float, float],
    size: tuple[int, int] = (640, 400),
) -> Tensor:
    """Draw curves over one x axis.

    Args:
        curves: at least one, with at least one point.
        title: above the plot.
        x_label: below it.
        y_range: lowest and highest y shown; values beyond are clamped.
        size: width and height in pixels.

    Returns:
        `[H, W, 3]` in 0..1.

    Raises:
        ValueError: there are no points, or the range is empty.
    """
    xs = [x for curve in curves for x in curve.x]
    if not xs or not y_range[0] < y_range[1]:
        raise ValueError(f"a plot needs points, and a range that is not empty; got {len(xs)} points, {y_range}")
    image = Image.new("RGB", size, PAPER)
    frame = _Frame(size, (min(xs), max(max(xs), min(xs) + 1e-9)), y_range)
    draw = ImageDraw.Draw(image)
    _draw_axes(draw, frame, title, x_label)
    for number, curve in enumerate(curves):
        _draw_curve(draw, frame, curve)
        corner = (frame.right - 8, frame.top + 8 + number * (TEXT + 5))
        draw.text(corner, curve.name, curve.colour, font(), anchor="ra")
    return to_tensor(image)


def captions(texts: Sequence[str], width: int, height: int = 18) -> Tensor:
    """Draw N short texts side by side, each centred in its cell: `[height, N * width, 3]` in 0..1."""
    image = Image.new("RGB", (width * len(texts), height), PAPER)
    draw = ImageDraw.Draw(image)
    for number, text in enumerate(texts):
        draw.text((width * (number + 0.5), height / 2), text, INK, font(min(TEXT, max(6, width // 5))), anchor="mm")
    return to_tensor(image)


def to_tensor(image: Image.Image) -> Tensor:
    """Convert a Pillow RGB image to `[H, W, 3]` in 0..1."""
    data = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return data.reshape(image.height, image.width, 3).float() / 255


class _Frame:
    """The map from data coordinates to pixels."""

    def __init__(self, size: tuple[int, int], x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x, self.y = x, y
        self.left, self.top, self.right, self.bottom = LEFT, TOP, size[0] - RIGHT, size[1] - BOTTOM

    def across(self, value: float) -> float:
        return self.left + (value - self.x[0]) / (self.x[1] - self.x[0]) * (self.right - self.left)

    def up(self, value: float) -> float:
        inside = min(max(value, self.y[0]), self.y[1])
        return self.bottom - (inside - self.y[0]) / (self.y[1] - self.y[0]) * (self.bottom - self.top)


def _draw_axes(draw: ImageDraw.ImageDraw, frame: _Frame, title: str, x_label: str) -> None:
    for value in _ticks(*frame.x):
        x = frame.across(value)
        draw.line([(x, frame.top), (x, frame.bottom)], GRID)
        draw.text((x, frame.bottom + 4), f"{value:g}", INK, font(), anchor="ma")
    for value in _ticks(*frame.y):
        y = frame.up(value)
        draw.line([(frame.left, y), (frame.right, y)], GRID)
        draw.text((frame.left - 6, y), f"{value:g}", INK, font(), anchor="rm")
    draw.rectangle([(frame.left, frame.top), (frame.right, frame.bottom)], outline=INK)
    middle = (frame.left + frame.right) / 2
    draw.text((middle, 9), title, INK, font(TEXT + 2), anchor="ma")
    draw.text((middle, frame.bottom + 24), x_label, INK, font(), anchor="ma")


def _draw_curve(draw: ImageDraw.ImageDraw, frame: _Frame, curve: Curve) -> None:
    places = zip(curve.x, curve.y, strict=True)
    points = [(frame.across(x), frame.up(y)) if math.isfinite(y) else None for x, y in places]
    for one, other in zip(points, points[1:], strict=False):
        if one and other:
            draw.line([one, other], curve.colour, width=2)
    for index in curve.marks:
        if point := points[index]:
            draw.ellipse([point[0] - 4, point[1] - 4, point[0] + 4, point[1] + 4], fill=curve.colour)


def _ticks(low: float, high: float) -> list[float]:
    """Return five to ten round numbers within low..high."""
    raw = (high - low) / 8
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(factor for factor in (1, 2, 5, 10) if factor * unit >= raw)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


@cache
def font(size: int = TEXT) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Load Pillow's built-in font, which every machine has, in a size in pixels."""
    return ImageFont.load_default(size)
