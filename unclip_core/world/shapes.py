"""Signed distance functions of the eight shapes, in units of the shape's radius.

Each takes coordinates (tensors of one shape; x to the right, y downwards, origin in the middle of the bounding box)
and returns the distance to the outline, negative inside. Every shape fits the box [-1, 1]².
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .vocabulary import SHAPES

Point = tuple[float, float]

_SQUARE = 0.88
_TRIANGLE = 0.98
_CROSS_LENGTH, _CROSS_WIDTH = 0.97, 0.33
_RING_HOLE = 0.55
_STAR_NOTCH = 0.45


def _box(x: Tensor, y: Tensor, width: float, height: float) -> Tensor:
    """Signed distance to an axis-aligned rectangle of half-sides `width` and `height`."""
    dx, dy = x.abs() - width, y.abs() - height
    outside = torch.hypot(dx.clamp(min=0), dy.clamp(min=0))
    return outside + torch.maximum(dx, dy).clamp(max=0)


def _to_segment(x: Tensor, y: Tensor, start: Point, end: Point) -> Tensor:
    """Distance to a line segment, negative to its left seen from `start` to `end` on screen (y downwards)."""
    ax, ay = end[0] - start[0], end[1] - start[1]
    px, py = x - start[0], y - start[1]
    along = ((px * ax + py * ay) / (ax * ax + ay * ay)).clamp(0, 1)
    distance = torch.hypot(px - along * ax, py - along * ay)
    return torch.where(ax * py - ay * px < 0, -distance, distance)


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, _SQUARE, _SQUARE)


def _diamond(x: Tensor, y: Tensor) -> Tensor:
    half = math.sqrt(0.5)
    return _box((x + y) * half, (x - y) * half, half, half)


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    """Equilateral, base at the bottom; its right half, mirrored."""
    height = _TRIANGLE * math.sqrt(3) / 2
    corner = (_TRIANGLE, height)
    x = x.abs()
    base = _to_segment(x, y, (0.0, height), corner)
    side = _to_segment(x, y, corner, (0.0, -height))
    nearest = torch.minimum(base.abs(), side.abs())
    return torch.where((base < 0) & (side < 0), -nearest, nearest)


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Five points, one at the top: folded by symmetry into the 36° between a tip and the notch beside it."""
    drop = (1 - math.cos(math.pi / 5)) / 2  # middle of the box, below the middle of the star
    fold = math.pi / 5
    normal_x, normal_y = math.cos(fold), math.sin(fold)  # of the line through the notch, away from the tip
    y = y - drop
    for _ in range(2):
        x = x.abs()
        beyond = 2 * (x * normal_x + y * normal_y).clamp(min=0)
        x, y = x - beyond * normal_x, y - beyond * normal_y
    notch = (_STAR_NOTCH * math.sin(fold), -_STAR_NOTCH * math.cos(fold))
    return _to_segment(x.abs(), y, notch, (0.0, -1.0))


def _cross(x: Tensor, y: Tensor) -> Tensor:
    upright, flat = _box(x, y, _CROSS_WIDTH, _CROSS_LENGTH), _box(x, y, _CROSS_LENGTH, _CROSS_WIDTH)
    return torch.minimum(upright, flat)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - (1 + _RING_HOLE) / 2).abs() - (1 - _RING_HOLE) / 2


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """A square on its corner, with a disc on the middle of each upper side."""
    half = 1 / (0.5 + math.sqrt(0.5))  # half the square's diagonal: the discs then reach x = ±1
    x, y = x.abs(), y + (half - 1) / 2
    disc = torch.hypot(x - half / 2, y + half / 2) - half * math.sqrt(0.5)
    side = half * math.sqrt(0.5)
    square = _box((x + y) * math.sqrt(0.5), (x - y) * math.sqrt(0.5), side, side)
    return torch.minimum(disc, square)


DISTANCES: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _circle, _square, _triangle, _diamond, _star, _cross, _ring, _heart,
)  # fmt: skip
"""The signed distance function of each shape, in the order of SHAPES."""

if len(DISTANCES) != len(SHAPES):
    raise ImportError(f"{len(DISTANCES)} distance functions for {len(SHAPES)} shapes")
