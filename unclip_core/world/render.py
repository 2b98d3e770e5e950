"""Render scenes from signed distance functions, antialiased, at any size, on any device."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from .scenes import Scene, Thing
from .shapes import DISTANCES
from .vocabulary import BACKGROUNDS, COLORS, Rgb

_PALETTE = tuple(COLORS.values())
_Slot = tuple[int, int, Thing]


def render(scenes: Sequence[Scene], size: int, device: str | torch.device = "cpu") -> Tensor:
    """Render scenes, each edge one pixel wide: a pixel's coverage is 0.5 − its centre's signed distance in pixels.

    Args:
        scenes: B of them.
        size: width and height in pixels; a scene looks the same at every size.
        device: where the images are made.

    Returns:
        `[B, 3, size, size]` float32, sRGB in 0..1.
    """
    coverage = _coverage(scenes, size, device)
    grounds = torch.tensor(list(BACKGROUNDS.values()), device=device) / 255
    background = torch.tensor([scene.background for scene in scenes], dtype=torch.long, device=device)
    images = grounds[background][:, :, None, None].expand(-1, -1, size, size).contiguous()
    for slot, alpha in enumerate(coverage):
        inks = [_ink(scene.things[slot]) if slot < len(scene.things) else (0, 0, 0) for scene in scenes]
        ink = torch.tensor(inks, device=device)[:, :, None, None] / 255
        images.add_((ink - images).mul_(alpha[:, None]))
    return images


def _ink(thing: Thing) -> Rgb:
    return _PALETTE[thing.color] if thing.ink is None else thing.ink


def _coverage(scenes: Sequence[Scene], size: int, device: str | torch.device) -> Tensor:
    """Return each thing's coverage of each pixel, `[things per scene, B, size, size]`, 0 for things a scene lacks."""
    slots = max((len(scene.things) for scene in scenes), default=0)
    coverage = torch.zeros(slots, len(scenes), size, size, device=device)
    alike: dict[tuple[int, int], list[_Slot]] = defaultdict(list)
    for index, scene in enumerate(scenes):
        for slot, thing in enumerate(scene.things):
            alike[thing.shape, thing.size].append((slot, index, thing))
    for (shape, _), members in alike.items():
        _draw_alike(coverage, shape, members)
    return coverage


def _draw_alike(coverage: Tensor, shape: int, members: list[_Slot]) -> None:
    """Draw things of one shape and size class at once, each within a window round it."""
    size, device = coverage.shape[-1], coverage.device
    slot, index = torch.tensor([member[:2] for member in members], device=device).unbind(1)
    boxes = torch.tensor([(thing.x, thing.y, thing.radius) for _, _, thing in members], device=device)
    x, y, radius = (boxes * size).unbind(1)
    width = min(size, math.ceil(2 * size * max(thing.radius for _, _, thing in members)) + 3)
    columns, rows = (_window(middle, width, size) for middle in (x, y))
    dx = (columns + 0.5 - x[:, None]) / radius[:, None]
    dy = (rows + 0.5 - y[:, None]) / radius[:, None]
    dx, dy = torch.broadcast_tensors(dx[:, None, :], dy[:, :, None])
    distance = DISTANCES[shape](dx, dy) * radius[:, None, None]
    where = (slot[:, None, None], index[:, None, None], rows[:, :, None], columns[:, None, :])
    coverage[where] = (0.5 - distance).clamp_(0, 1)


def _window(middle: Tensor, width: int, size: int) -> Tensor:
    """Return the indices `[N, width]` of the `width` pixels round each centre `[N]`, shifted into the frame."""
    first = (middle - width / 2).round().long().clamp(0, size - width)
    return first[:, None] + torch.arange(width, device=middle.device)
