"""What is in a picture, chosen from its seed: one thing, two things, or a plain shape, and what its caption says."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .sprites import Sprites
from .vocabulary import (
    COLORS,
    GROUNDS,
    HELD_OUT_SHAPES,
    PLACES,
    RELATIONS,
    SHAPE_COLORS,
    SHAPES,
    STYLES,
    concepts,
    held_out_ground,
    held_out_pair,
    well_known,
)

Kind = Literal["thing", "scene", "shape"]
Split = Literal["trained", "held_out"]
CENTER = PLACES.index("center")
FULL = (0.80, 0.94)
"""Side of a thing that is said to be neither small nor large, of the picture's."""
SIDES = ((0.34, 0.44), (0.90, 0.98))
"""Sides of small and of large things; a small one may stand in any of nine places."""
SCENE_SIDE = (0.40, 0.48)
JITTER = 0.03
"""How far things stand from where they should, of the picture's side."""
SAME_STYLE = 0.85
"""Share of scenes whose things are drawn in one style."""
WELL_KNOWN_SHARE = 0.35
"""Share of scenes whose first thing is a well-known one."""
WHITE_SHARE = 0.4
"""Share of pictures on white: what is drawn where no ground is named."""
LEAST_CONTRAST = 110.0
"""How far a shape's colour lies at least from the ground, in 8-bit sRGB."""


@dataclass(frozen=True)
class Placed:
    """A thing in a picture: its concept (or shape), its style (or the shape's colour), centre and side in 0..1."""

    concept: int
    style: int
    x: float
    y: float
    side: float


@dataclass(frozen=True)
class Picture:
    """A picture, and which of its facts its caption names.

    Attributes:
        kind: a thing, a scene of two things, or a plain shape.
        ground: index of the ground.
        things: one, or two in the order of `relation`.
        relation: of a scene's first thing to its second.
        size: 0 small, 1 large, None neither.
        place: where a small thing stands; CENTER for others.
        says: some of "style", "ground", "size", "place", "color".
    """

    kind: Kind
    ground: int
    things: tuple[Placed, ...]
    relation: int | None = None
    size: int | None = None
    place: int = CENTER
    says: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Shares:
    """How much of the data is scenes and plain shapes; the rest is single things."""

    scenes: float = 0.26
    shapes: float = 0.1

    def __post_init__(self) -> None:
        if not (self.scenes >= 0 and self.shapes >= 0 and self.scenes + self.shapes <= 1):
            raise ValueError(f"Scenes and shapes must have shares of 0..1 in all, not {self.scenes} and {self.shapes}.")


SHARES = Shares()


def picture_random(seed: int, index: int, use: str) -> random.Random:
    """The generator of one picture: from the seed, its number and what it is used for, and nothing else."""
    return random.Random(f"{use} {seed} {index}")


def draw_picture(chance: random.Random, sprites: Sprites, shares: Shares = SHARES) -> Picture:
    """A picture of the training data: no held-out pair is in it."""
    kind = chance.random()
    if kind < shares.scenes:
        return draw_scene(chance, sprites)
    return draw_shape(chance) if kind < shares.scenes + shares.shapes else draw_thing(chance, sprites)


def draw_thing(chance: random.Random, sprites: Sprites, split: Split = "trained") -> Picture:
    """One thing; held out: before a ground that it is never trained with."""
    while True:
        concept = chance.randrange(len(concepts()))
        ground = _ground(chance)
        if held_out_ground(concept, ground) == (split == "held_out"):
            break
    style = chance.choice(sprites.styles[concept])
    size = chance.choices((None, 0, 1), (0.62, 0.28, 0.10))[0]
    place = chance.randrange(len(PLACES)) if size == 0 else CENTER
    says = {"style": 0.6, "ground": _ground_said(ground), "size": 0.5 if size is not None else 0.0}
    says |= {"place": 0.8 if size == 0 else 0.04, "color": 0.25 if sprites.main_color(style, concept) >= 0 else 0.0}
    placed = _placed(chance, concept, style, size, place)
    return Picture("thing", ground, (placed,), None, size, place, _said(chance, says))


def draw_shape(chance: random.Random, split: Split = "trained") -> Picture:
    """A plain shape in a named colour; held out: in a colour that it is never trained with."""
    pairs = [(shape, color) for shape in range(len(SHAPES)) for color in range(SHAPE_COLORS)]
    shape, color = chance.choice([pair for pair in pairs if (pair in HELD_OUT_SHAPES) == (split == "held_out")])
    while _contrast(color, ground := _ground(chance)) < LEAST_CONTRAST:
        pass
    size = chance.choices((None, 0, 1), (0.4, 0.45, 0.15))[0]
    place = chance.randrange(len(PLACES)) if size == 0 else CENTER
    says = {"ground": _ground_said(ground), "size": 0.5 if size is not None else 0.0, "color": 1.0}
    says["place"] = 0.85 if size == 0 else 0.04
    placed = _placed(chance, shape, color, size, place)
    return Picture("shape", ground, (placed,), None, size, place, _said(chance, says))


def draw_scene(chance: random.Random, sprites: Sprites, split: Split = "trained") -> Picture:
    """Two things, one beside or above the other; held out: two that are never trained together."""
    while True:
        first, second = _two_concepts(chance, split)
        ground = _ground(chance)
        if first != second and held_out_pair(first, second) == (split == "held_out"):
            break
    styles = _two_styles(chance, sprites, first, second)
    relation = chance.randrange(len(RELATIONS))
    says = {"ground": _ground_said(ground), "style": 0.5 if styles[0] == styles[1] else 0.0}
    things = tuple(
        _in_scene(chance, concept, style, relation, number)
        for number, (concept, style) in enumerate(zip((first, second), styles, strict=True))
    )
    return Picture("scene", ground, things, relation, says=_said(chance, says))


def _two_concepts(chance: random.Random, split: Split) -> tuple[int, int]:
    count, known = len(concepts()), sorted(well_known())
    if split == "held_out":
        return chance.choice(known), chance.choice(known)
    first = chance.choice(known) if chance.random() < WELL_KNOWN_SHARE else chance.randrange(count)
    pair = (first, chance.randrange(count))
    return pair if chance.random() < 0.5 else (pair[1], pair[0])


def _two_styles(chance: random.Random, sprites: Sprites, first: int, second: int) -> tuple[int, int]:
    common = sorted(set(sprites.styles[first]) & set(sprites.styles[second]))
    if common and chance.random() < SAME_STYLE:
        return (chance.choice(common),) * 2
    return chance.choice(sprites.styles[first]), chance.choice(sprites.styles[second])


def _in_scene(chance: random.Random, concept: int, style: int, relation: int, number: int) -> Placed:
    along, across = _near(chance, 0.26 + 0.48 * number), _near(chance, 0.5)
    x, y = (along, across) if RELATIONS[relation] == "beside" else (across, along)
    return Placed(concept, style, x, y, chance.uniform(*SCENE_SIDE))


def _placed(chance: random.Random, concept: int, style: int, size: int | None, place: int) -> Placed:
    side = chance.uniform(*(FULL if size is None else SIDES[size]))
    x, y = (_place_center(chance, cell, side) for cell in (place % 3, place // 3))
    return Placed(concept, style, x, y, side)


def _place_center(chance: random.Random, cell: int, side: float) -> float:
    """The centre along an axis: near a cell's, and with the whole thing inside the picture."""
    free = max(0.0, (1 - side) / 2 - 0.01)
    return min(max(_near(chance, (0.22, 0.5, 0.78)[cell]), 0.5 - free), 0.5 + free)


def _near(chance: random.Random, value: float) -> float:
    return value + chance.uniform(-JITTER, JITTER)


def _ground(chance: random.Random) -> int:
    return 0 if chance.random() < WHITE_SHARE else chance.randrange(1, len(GROUNDS))


def _ground_said(ground: int) -> float:
    """How often a ground is named: white seldom, so that it is what is drawn when none is named."""
    return 0.3 if ground == 0 else 0.92


def _said(chance: random.Random, shares: dict[str, float]) -> frozenset[str]:
    return frozenset(fact for fact, share in shares.items() if chance.random() < share)


def _contrast(color: int, ground: int) -> float:
    pair = zip(list(COLORS.values())[color], list(GROUNDS.values())[ground], strict=True)
    return sum((one - other) ** 2 for one, other in pair) ** 0.5


def styles_of(picture: Picture) -> Sequence[str]:
    """The names of the styles in a picture; none for shapes."""
    return [] if picture.kind == "shape" else [STYLES[thing.style] for thing in picture.things]
