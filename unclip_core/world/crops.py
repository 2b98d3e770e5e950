"""Crops of scenes, rendered without the rest of the image."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .render import render
from .scenes import Scene


def seen_through(scene: Scene, left: float, top: float, side: float) -> Scene:
    """Express a scene in the coordinates of a square crop; things may then lie outside the frame.

    Args:
        scene: the whole.
        left, top, side: the crop, in fractions of the scene's width.
    """
    things = tuple(
        replace(thing, x=(thing.x - left) / side, y=(thing.y - top) / side, radius=thing.radius / side)
        for thing in scene.things
    )
    return replace(scene, things=things)


def window_on_outline(scene: Scene, rng: random.Random, cells: int, across: int) -> tuple[float, float, float]:
    """Draw a crop (left, top, side) centred about on the outline of one of the things, aligned to a grid.

    Args:
        scene: what is cropped.
        rng: draws the thing and the direction from its centre.
        cells: grid cells along the image's width.
        across: cells along the crop's side.
    """
    thing, angle = rng.choice(scene.things), rng.uniform(0, 2 * math.pi)
    reach = thing.radius * rng.uniform(0.4, 1.1)
    corner = (
        middle - across / 2 / cells for middle in (thing.x + reach * math.cos(angle), thing.y + reach * math.sin(angle))
    )
    left, top = (min(max(round(place * cells), 0), cells - across) / cells for place in corner)
    return left, top, across / cells


def draw_windows(
    scenes: Sequence[Scene],
    windows: Sequence[tuple[float, float, float]],
    size: int,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Render each scene's crop: `[B, 3, size, size]` in 0..1."""
    return render([seen_through(scene, *window) for scene, window in zip(scenes, windows, strict=True)], size, device)
