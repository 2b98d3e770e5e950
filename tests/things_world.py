"""A small world of things without the packages: one drawing for all, names made up."""

import io

import numpy as np
from PIL import Image

from unclip.unclip_core.recipes.things.captions import Captions
from unclip.unclip_core.recipes.things.dataset import World
from unclip.unclip_core.recipes.things.sprites import STORED, Sprites
from unclip.unclip_core.recipes.things.vocabulary import COLORS, LANGUAGES, STYLES, concepts


def small_world():
    """Every thing in every style as the same red disc, called "thing 7" with the keyword "word 7"."""
    y, x = np.mgrid[:STORED, :STORED] - (STORED - 1) / 2
    disc = np.zeros((STORED, STORED, 4), np.uint8)
    disc[x * x + y * y < (STORED / 2) ** 2] = (*COLORS["red"], 255)
    keys = [(style, concept) for style in range(len(STYLES)) for concept in range(len(concepts()))]
    stored = np.broadcast_to(disc, (len(keys), *disc.shape))
    png = io.BytesIO()
    Image.fromarray(disc).save(png, "png")
    sprites = Sprites(keys, [png.getvalue()] * len(keys), stored, [list(COLORS).index("red")] * len(keys))
    names = {lang: tuple((f"thing {n}", (f"word {n}",)) for n in range(len(concepts()))) for lang in LANGUAGES}
    return World(sprites, Captions(names, sprites))
