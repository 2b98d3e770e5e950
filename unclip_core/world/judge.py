"""The analytic judge: recovers the scene from an image without any network, and compares it with the one asked for.

The border gives the background; the pixels that differ from it form connected components. A component's colour is
the palette's nearest to its median; its shape is that of the eight with the greatest soft IoU at the component's area
and centroid, and that IoU measures how sharply it is drawn.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .scenes import Scene
from .shapes import DISTANCES
from .vocabulary import BACKGROUNDS, COLORS, RADII, REFERENCE_WIDTH, Rgb

FOREGROUND = 50 / 255
"""RGB distance from the background above which a pixel belongs to a thing.

Half the distance of the palette's closest colour and background, and four times a noise of σ = 12/255.
"""

LEAST_AREA = 12
"""Components with fewer pixels are specks (noise), not things; the smallest star covers 50."""

MOST_THINGS = 8
"""At most so many components are read, the largest: with more the count is wrong anyway."""

CRISP = 0.75
"""Least IoU of each thing with its ideal shape for an image to count as all right."""

SCORES = ("background", "count", "color", "shape", "bound", "size", "place", "all")
"""Keys of what `score` returns; `place` is the relation for pairs, `bound` every thing's colour and shape together."""


@dataclass(frozen=True)
class FoundThing:
    """A thing read from an image: fields as in `Thing`, and its IoU with the ideal shape, 0..1."""

    shape: int
    color: int
    size: int
    x: float
    y: float
    radius: float
    iou: float


@dataclass(frozen=True)
class Reading:
    """What an image shows: the background's index and the things, largest first."""

    background: int
    things: tuple[FoundThing, ...]


def judge(image: Tensor) -> Reading:
    """Read background and things from an image.

    Args:
        image: `[3, H, W]` in 0..1, square; one larger than 64 px is averaged down to that.

    Raises:
        ValueError: another shape, a smaller image, or values that are not finite.
    """
    image = _at_reference_width(image)
    ground = _border(image).median(dim=1).values
    mask = torch.linalg.vector_norm(image - ground[:, None, None], dim=0) > FOREGROUND
    components = _components(mask)
    things = tuple(_read_thing(image, ground, mask, component) for component in components)
    return Reading(_nearest(ground, BACKGROUNDS.values()), things)


def score(reading: Reading, scene: Scene) -> dict[str, bool]:
    """Compare what was read with the scene that was asked for.

    Found things are matched to those asked for by the assignment with the most right. Colour, shape or size count as
    right if they are so for every thing; "all" also needs every thing's IoU above CRISP.

    Returns:
        Each of SCORES → whether it is right.
    """
    asked = len(scene.things)
    found = {"background": reading.background == scene.background, "count": len(reading.things) == asked}
    assignments = itertools.permutations(reading.things, asked)
    best = max((_compare(things, scene) for things in assignments), key=sum, default=(0, 0, 0, 0))
    colors, shapes, sizes, place = best
    found |= {"color": colors == asked, "shape": shapes == asked, "size": sizes == asked, "place": place == 1}
    found["bound"] = found["color"] and found["shape"]
    found["all"] = all(found.values()) and all(thing.iou > CRISP for thing in reading.things)
    return found


def _compare(things: Sequence[FoundThing], scene: Scene) -> tuple[int, int, int, int]:
    """Count the right colours, shapes and sizes, and the place or relation (1 if right, 0 if not)."""
    pairs = list(zip(things, scene.things, strict=True))
    colors, shapes, sizes = (
        sum(getattr(found, name) == getattr(asked, name) for found, asked in pairs)
        for name in ("color", "shape", "size")
    )
    in_place = _place(things[0]) == scene.place if len(things) == 1 else _relation(*things) == scene.relation
    return colors, shapes, sizes, int(in_place)


def _place(thing: FoundThing) -> int:
    column, row = (min(max(int(3 * value), 0), 2) for value in (thing.x, thing.y))
    return 3 * row + column


def _relation(first: FoundThing, second: FoundThing) -> int:
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) > abs(dy):
        return 0 if dx < 0 else 1
    return 2 if dy < 0 else 3


def _at_reference_width(image: Tensor) -> Tensor:
    shape = tuple(image.shape)
    if len(shape) != 3 or shape[0] != 3 or shape[1] != shape[2] or shape[1] < REFERENCE_WIDTH:
        raise ValueError(
            f"cannot judge an image of shape {list(shape)}: it must be [3, H, W] with "
            f"H = W of at least {REFERENCE_WIDTH}"
        )
    if not image.isfinite().all():
        raise ValueError("cannot judge an image with NaN or infinite values: the sampling that made it diverged")
    return F.adaptive_avg_pool2d(image.detach().float().cpu(), REFERENCE_WIDTH)


def _border(image: Tensor) -> Tensor:
    """Return the outermost pixels, `[3, N]`, which no thing covers."""
    return torch.cat([image[:, 0], image[:, -1], image[:, 1:-1, 0], image[:, 1:-1, -1]], dim=1)


def _nearest(color: Tensor, palette: Iterable[Rgb]) -> int:
    colors = torch.tensor(list(palette)) / 255
    return int(torch.linalg.vector_norm(colors - color, dim=1).argmin())


def _components(mask: Tensor) -> list[Tensor]:
    """Label connected components (8-neighbourhood): a mask `[H, W]` each, largest first, specks left out."""
    labels = torch.where(mask, torch.arange(1.0, mask.numel() + 1).reshape(mask.shape), 0.0)
    while True:  # the largest label of a component spreads through it, four steps between two checks
        spread = labels
        for _ in range(4):
            spread = F.max_pool2d(spread[None], 3, 1, 1)[0] * mask
        if torch.equal(spread, labels):
            break
        labels = spread
    names, areas = labels[mask].unique(return_counts=True)
    largest = areas.sort(descending=True).indices[:MOST_THINGS]
    return [labels == names[i] for i in largest if areas[i] >= LEAST_AREA]


def _read_thing(image: Tensor, ground: Tensor, mask: Tensor, component: Tensor) -> FoundThing:
    color = _inner_color(image[:, component], ground)
    alpha = _alpha(image, ground, color, mask, component)
    fits = [_fit(alpha, shape) for shape in range(len(DISTANCES))]
    shape, x, y, radius, iou = max(fits, key=lambda fit: fit[-1])
    width = image.shape[-1]
    size = min(range(len(RADII)), key=lambda i: abs(math.log(radius / width / RADII[i])))
    return FoundThing(shape, _nearest(color, COLORS.values()), size, x / width, y / width, radius / width, iou)


def _inner_color(pixels: Tensor, ground: Tensor) -> Tensor:
    """Return the median colour `[3]` of the half of a component's pixels `[3, N]` with the most contrast.

    The other half may lie on the edge, blended with the background.
    """
    contrast = torch.linalg.vector_norm(pixels - ground[:, None], dim=0)
    return pixels[:, contrast >= contrast.median()].median(dim=1).values


def _alpha(image: Tensor, ground: Tensor, color: Tensor, mask: Tensor, component: Tensor) -> Tensor:
    """Estimate each pixel's coverage by a component, `[H, W]`: 0 is the background's colour, 1 the component's."""
    ink = color - ground
    alpha = torch.einsum("chw,c->hw", image - ground[:, None, None], ink) / ink.square().sum()
    near = F.max_pool2d(component[None].float(), 5, 1, 2)[0] > 0
    return torch.where(near & (component | ~mask), alpha, 0.0)


@cache
def _moments(shape: int) -> tuple[float, float, float]:
    """Return a unit shape's area and centroid (x, y)."""
    axis = (torch.arange(512) + 0.5) / 256 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = DISTANCES[shape](x, y) < 0
    return float(inside.sum()) / 256**2, float(x[inside].mean()), float(y[inside].mean())


def _fit(alpha: Tensor, shape: int) -> tuple[int, float, float, float, float]:
    """Fit a shape to a component by area and centroid: (shape, x, y, radius in pixels, IoU)."""
    rows, columns = (torch.arange(n) + 0.5 for n in alpha.shape)
    area = alpha.sum()
    unit_area, middle_x, middle_y = _moments(shape)
    radius = (area / unit_area).sqrt()
    x = (alpha.sum(0) @ columns) / area - middle_x * radius
    y = (alpha.sum(1) @ rows) / area - middle_y * radius
    dx, dy = torch.broadcast_tensors((columns[None] - x) / radius, (rows[:, None] - y) / radius)
    ideal = (0.5 - DISTANCES[shape](dx, dy) * radius).clamp(0, 1)
    found = alpha.clamp(0, 1)
    # The fitted shape's full area, not its sum over the image: what lies outside the frame counts against the fit.
    common = torch.minimum(found, ideal).sum()
    iou = common / (found.sum() + area - common)
    return shape, float(x), float(y), float(radius), float(iou)
