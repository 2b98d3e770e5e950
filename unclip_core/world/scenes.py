"""Scenes: what an image shows, and random ones for training and for evaluation."""

import math
import random
from dataclasses import dataclass, replace

from .vocabulary import (
    BACKGROUNDS,
    COLORS,
    HELD_OUT,
    PIXEL,
    PLACES,
    RADII,
    RADIUS_JITTER,
    RELATIONS,
    SHAPES,
    SIZES,
    UNNAMED,
    UNNAMED_DISTANCE,
    Rgb,
)

KINDS = ("single", "pair")
SPLITS = ("trained", "held_out")

MARGIN = PIXEL
"""Least distance between a thing and the frame."""

GAP = 2 * PIXEL
"""Least distance between the two things of a pair, along the axis of their relation."""

PLACE_JITTER = 2.5 * PIXEL
"""A single thing's centre is at most this far from the middle of its cell, on each axis, before clamping."""

SLANT = 0.5
"""Two things differ across their relation's axis by at most this fraction of their distance along it."""

_ALL_KINDS = tuple((shape, color) for shape in range(len(SHAPES)) for color in range(len(COLORS)))
_TRAINED = tuple(pair for pair in _ALL_KINDS if pair not in HELD_OUT)
_HELD_OUT = tuple(sorted(HELD_OUT))


@dataclass(frozen=True)
class Thing:
    """One coloured shape: indices into SHAPES, COLORS and SIZES.

    `x`, `y` are its centre (from the left, from the top) and `radius` half the side of the box round it,
    all as fractions of the image's width. A thing whose `color` is UNNAMED is drawn in `ink`.
    """

    shape: int
    color: int
    size: int
    x: float
    y: float
    radius: float
    ink: Rgb | None = None


@dataclass(frozen=True)
class Scene:
    """One thing at a `place`, or two things of which the first has the `relation` to the second.

    `background`, `place` and `relation` are indices; a single has no relation, a pair no place.
    """

    background: int
    things: tuple[Thing, ...]
    place: int | None
    relation: int | None

    @property
    def kind(self) -> str:
        """`single` or `pair`."""
        return KINDS[len(self.things) - 1]


def sample_scene(rng: random.Random, kind: str, split: str) -> Scene:
    """Draw a random scene.

    Args:
        rng: draws everything.
        kind: "single" or "pair".
        split: "trained": no held-out (shape, colour) pair in it; "held_out": exactly one.

    Raises:
        ValueError: an unknown kind or split.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown kind of scene {kind!r}: use one of {', '.join(KINDS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    looks = _sample_looks(rng, kind, split)
    return _single(rng, looks[0]) if kind == "single" else _pair(rng, looks)


def sample_scenes(rng: random.Random, count: int, split: str, pair_fraction: float = 0.5) -> list[Scene]:
    """Draw `count` random scenes of a split, each a pair with probability `pair_fraction`."""
    return [sample_scene(rng, "pair" if rng.random() < pair_fraction else "single", split) for _ in range(count)]


def with_unnamed_colors(scenes: list[Scene], rng: random.Random, fraction: float) -> list[Scene]:
    """Copy scenes with some of their things recoloured in random colours that have no name.

    Training on them teaches shape apart from colour without ever showing a held-out pair.

    Args:
        scenes: what is copied.
        rng: draws which things and which colours.
        fraction: probability, 0..1, that a thing is recoloured.
    """
    return [
        replace(
            scene,
            things=tuple(_unnamed(thing, scene, rng) if rng.random() < fraction else thing for thing in scene.things),
        )
        for scene in scenes
    ]


def _unnamed(thing: Thing, scene: Scene, rng: random.Random) -> Thing:
    named = [*COLORS.values(), tuple(BACKGROUNDS.values())[scene.background]]
    while True:
        ink = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        if min(math.dist(ink, other) for other in named) >= UNNAMED_DISTANCE:
            return replace(thing, color=UNNAMED, ink=ink)


def _sample_looks(rng: random.Random, kind: str, split: str) -> list[tuple[int, int]]:
    """The (shape, colour) of each thing."""
    looks = [rng.choice(_HELD_OUT if split == "held_out" else _TRAINED)]
    if kind == "pair":
        # Between two things that look the same a relation would mean nothing.
        other = rng.choice(_TRAINED)
        while other == looks[0]:
            other = rng.choice(_TRAINED)
        looks.append(other)
        rng.shuffle(looks)
    return looks


def _sample_size(rng: random.Random) -> tuple[int, float]:
    size = rng.randrange(len(SIZES))
    return size, RADII[size] * (1 + rng.uniform(-RADIUS_JITTER, RADIUS_JITTER))


def _clamp(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)


def _single(rng: random.Random, look: tuple[int, int]) -> Scene:
    size, radius = _sample_size(rng)
    place = rng.randrange(len(PLACES))
    row, column = divmod(place, 3)
    edge = radius + MARGIN
    x, y = (
        _clamp((cell + 0.5) / 3 + rng.uniform(-PLACE_JITTER, PLACE_JITTER), edge, 1 - edge) for cell in (column, row)
    )
    return Scene(rng.randrange(len(BACKGROUNDS)), (Thing(*look, size, x, y, radius),), place, None)


def _pair(rng: random.Random, looks: list[tuple[int, int]]) -> Scene:
    sizes = [_sample_size(rng) for _ in looks]
    relation = rng.randrange(len(RELATIONS))
    horizontal, first_is_low = relation < 2, relation in (0, 2)
    # Along the axis the thing with the lower coordinate comes first, whichever role it has.
    order = (0, 1) if first_is_low else (1, 0)
    low, high = (sizes[i][1] for i in order)
    along = _along_axis(rng, low, high)
    across = _across_axis(rng, low, high, reach=SLANT * (along[1] - along[0]))
    things: list[Thing] = []
    for look, (size, radius), i in zip(looks, sizes, order, strict=True):
        x, y = (along[i], across[i]) if horizontal else (across[i], along[i])
        things.append(Thing(*look, size, x, y, radius))
    return Scene(rng.randrange(len(BACKGROUNDS)), tuple(things), None, relation)


def _along_axis(rng: random.Random, low_radius: float, high_radius: float) -> tuple[float, float]:
    """Draw centres along the relation's axis: the free length is divided at random before, between and behind them."""
    room = 1 - 2 * MARGIN - GAP - 2 * (low_radius + high_radius)
    before, up_to_second = sorted(rng.uniform(0, room) for _ in range(2))
    low = MARGIN + before + low_radius
    high = MARGIN + up_to_second + 2 * low_radius + GAP + high_radius
    return low, high


def _across_axis(rng: random.Random, low_radius: float, high_radius: float, reach: float) -> tuple[float, float]:
    """Draw centres across the relation's axis, at most `reach` apart and within the frame."""
    low_edge, high_edge = low_radius + MARGIN, high_radius + MARGIN
    # The first must lie so that the second, which may be larger, fits within `reach` of it.
    low = rng.uniform(max(low_edge, high_edge - reach), 1 - max(low_edge, high_edge - reach))
    high = rng.uniform(max(high_edge, low - reach), min(1 - high_edge, low + reach))
    return low, high
