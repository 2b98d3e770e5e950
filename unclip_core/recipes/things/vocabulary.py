"""What pictures of this world are made of: styles, grounds, places, sizes, shapes, colours, and what is held out.

All are referred to by their index elsewhere; what they are called in each language stands in `words/`.
"""

import zlib
from functools import lru_cache
from pathlib import Path

from ...world import vocabulary as shapes_world
from ...world.vocabulary import PLACES, SHAPES, Rgb

STYLES = ("shaded", "cartoon", "flat", "3d", "retro")
GROUNDS: dict[str, Rgb] = {
    **shapes_world.BACKGROUNDS,
    "blue": (84, 140, 236),
    "pink": (250, 170, 200),
    "yellow": (252, 216, 96),
    "green": (74, 176, 98),
}
SIZES = ("small", "large")
COLORS: dict[str, Rgb] = {
    **shapes_world.COLORS,
    "brown": (125, 75, 40),
    "black": (30, 30, 30),
    "white": (245, 245, 245),
    "gray": (140, 145, 150),
}
"""The colours that a thing may be said to have. Shapes have the first ones, up to SHAPE_COLORS."""
SHAPE_COLORS = len(shapes_world.COLORS)
RELATIONS = ("beside", "above")
"""The first thing is left of the second, or above it."""
LANGUAGES = ("en", "tr", "de", "es", "fr", "ja", "ko", "ru", "zh")
HELD_OUT_SHAPES = shapes_world.HELD_OUT
"""(shape, colour) pairs that are never trained."""
_GROUND_SHARE = 13  # one in so many pairs of a thing and a ground is held out
CONCEPTS_FILE = Path(__file__).with_name("concepts.txt")

__all__ = ["COLORS", "GROUNDS", "LANGUAGES", "PLACES", "RELATIONS", "SHAPES", "SIZES", "STYLES", "Rgb"]


@lru_cache(maxsize=1)
def concepts() -> tuple[str, ...]:
    """The things, by their code points in hexadecimal: "1f431"."""
    return tuple(line.split()[0] for line in _lines())


@lru_cache(maxsize=1)
def well_known() -> frozenset[int]:
    """Well-known things, by index; two of them are never trained in one picture."""
    return frozenset(index for index, line in enumerate(_lines()) if line.endswith("*"))


def held_out_pair(first: int, second: int) -> bool:
    """Whether two things (by index) are never trained in one picture."""
    return first in well_known() and second in well_known()


def held_out_ground(concept: int, ground: int) -> bool:
    """Whether a thing is never trained before that ground; before white each is."""
    return ground != 0 and zlib.crc32(f"{concepts()[concept]} {ground}".encode()) % _GROUND_SHARE == 0


def _lines() -> list[str]:
    lines = CONCEPTS_FILE.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]
