"""Windows on scenes: a part of a large image drawn without the rest of it."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .render import render
from .scenes import Scene


def seen_through(scene: Scene, left: float, top: float, side: float) -> Scene:
    """The scene in a square window, all in fractions of its width: an image of that is the window's part of the whole.

    Things may lie outside of what is then the frame.
    """
    things = tuple(
        replace(thing, x=(thing.x - left) / side, y=(thing.y - top) / side, radius=thing.radius / side)
        for thing in scene.things
    )
    return replace(scene, things=things)


def window_on_outline(scene: Scene, rng: random.Random, cells: int, across: int) -> tuple[float, float, float]:
    """A window (left, top, side) of `across` of the `cells` along the frame, on the grid of cells, near an outline.

    Its middle is about where one of the things ends, in a random direction.
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
    """The windows on their scenes as images `[B, 3, size, size]` in 0..1."""
    return render([seen_through(scene, *window) for scene, window in zip(scenes, windows, strict=True)], size, device)
