"""Shapes, colours, sizes, backgrounds, places and relations, and the words for them.

Everywhere else they are referred to by their index here.
In every tuple of names the first is the canonical one, the others are synonyms that captions may use.
Lengths are fractions of the image's width; colours are 8-bit sRGB.
"""

import re

Rgb = tuple[int, int, int]

REFERENCE_WIDTH = 64
"""Width in pixels that radii, gaps and margins are specified at."""

PIXEL = 1.0 / REFERENCE_WIDTH
"""One pixel of the reference width, as a fraction of the width."""

SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross", "ring", "heart")

COLORS: dict[str, Rgb] = {
    "red": (222, 28, 32),
    "green": (28, 150, 45),
    "blue": (35, 95, 240),
    "yellow": (252, 220, 20),
    "orange": (252, 132, 10),
    "purple": (125, 38, 170),
    "pink": (248, 95, 180),
    "cyan": (10, 190, 215),
}

UNNAMED = -1
"""Colour index of a thing that is drawn in a colour without a name (`Thing.ink`)."""

UNNAMED_DISTANCE = 60.0
"""Least Euclidean distance, in 8-bit sRGB, of an unnamed colour from every named one and from the background."""

BACKGROUNDS: dict[str, Rgb] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "beige": (230, 200, 150),
    "navy": (20, 25, 75),
    "mint": (168, 238, 200),
}

SIZES = ("small", "medium", "large")
RADII = (6.5 * PIXEL, 9.5 * PIXEL, 13.0 * PIXEL)
"""Nominal radius of each size: half the side of the box round a shape."""

RADIUS_JITTER = 0.05
"""A thing's radius is its size's, times a factor within 1 ± this."""

PLACES = (
    "top left", "top", "top right",
    "left", "center", "right",
    "bottom left", "bottom", "bottom right",
)  # fmt: skip
"""The cells of a 3 × 3 grid, row by row; y grows downwards."""

RELATIONS = ("left of", "right of", "above", "below")
"""Where a pair's first thing is, seen from its second."""

OPPOSITE = (1, 0, 3, 2)
"""Index of each relation's inverse: the same said with the two things exchanged."""

HELD_OUT = frozenset(
    (SHAPES.index(shape), tuple(COLORS).index(color))
    for shape, color in (
        ("circle", "purple"),
        ("square", "yellow"),
        ("triangle", "cyan"),
        ("diamond", "red"),
        ("star", "pink"),
        ("cross", "blue"),
        ("ring", "orange"),
        ("heart", "green"),
    )
)
"""(shape, colour) pairs left out of training, to measure composition on: each shape and each colour once."""

SHAPE_WORDS = (
    ("circle", "disc"),
    ("square", "box"),
    ("triangle",),
    ("diamond", "rhombus"),
    ("star",),
    ("cross", "plus"),
    ("ring", "donut"),
    ("heart",),
)

COLOR_WORDS = (
    ("red",),
    ("green",),
    ("blue",),
    ("yellow",),
    ("orange",),
    ("purple", "violet"),
    ("pink",),
    ("cyan", "turquoise"),
)

SIZE_WORDS = (
    ("small", "tiny", "little"),
    ("medium", "medium-sized"),
    ("large", "big", "huge"),
)

BACKGROUND_WORDS = (
    ("white",),
    ("black",),
    ("gray", "grey"),
    ("beige", "tan"),
    ("navy", "dark blue"),
    ("mint", "light green"),
)

PLACE_WORDS = (
    ("in the top left corner", "in the upper left corner", "at the top left"),
    ("at the top", "at the top center", "in the top middle"),
    ("in the top right corner", "in the upper right corner", "at the top right"),
    ("on the left", "on the left side", "at the left"),
    ("in the center", "in the middle", "at the center"),
    ("on the right", "on the right side", "at the right"),
    ("in the bottom left corner", "in the lower left corner", "at the bottom left"),
    ("at the bottom", "at the bottom center", "in the bottom middle"),
    ("in the bottom right corner", "in the lower right corner", "at the bottom right"),
)

RELATION_WORDS = (
    ("to the left of", "left of", "on the left of"),
    ("to the right of", "right of", "on the right of"),
    ("above", "over", "on top of"),
    ("below", "under", "beneath", "underneath"),
)


def split_words(text: str) -> list[str]:
    """Split a text into its words in lower case: runs of letters, so "Medium-sized." gives medium, sized."""
    return re.findall(r"[a-z]+", text.lower())
