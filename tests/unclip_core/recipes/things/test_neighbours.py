"""The judge that nobody trained, on drawings whose likeness is known."""

import numpy as np
import pytest
import torch
from things_world import small_world

from unclip.unclip_core.recipes.things.dataset import World
from unclip.unclip_core.recipes.things.neighbours import Neighbours
from unclip.unclip_core.recipes.things.pictures import Picture, Placed
from unclip.unclip_core.recipes.things.sprites import STORED, Sprites
from unclip.unclip_core.recipes.things.vocabulary import GROUNDS

RED, BLUE = (220, 30, 30), (30, 60, 220)


def drawing(kind, color):
    y, x = (np.mgrid[:STORED, :STORED] - (STORED - 1) / 2) / (STORED / 2)
    radius = np.sqrt(x * x + y * y)
    ring, bar = (radius < 0.9) & (radius > 0.5), (abs(x) < 0.25) & (abs(y) < 0.9)
    inside = {"disc": radius < 0.9, "ring": ring, "bar": bar, "wide": bar.T}[kind]
    rgba = np.zeros((STORED, STORED, 4), np.uint8)
    rgba[inside] = (*color, 255)
    return rgba


@pytest.fixture(scope="module")
def world():
    """Concept 10 is a disc, red in style 0 and blue in style 1; 11 a ring, 12 a bar, 13 a wide bar, red ones."""
    drawn = {(0, 10): ("disc", RED), (1, 10): ("disc", BLUE), (0, 11): ("ring", RED), (0, 12): ("bar", RED)}
    drawn[0, 13] = ("wide", RED)
    stored = np.stack([drawing(*each) for each in drawn.values()])
    sprites = Sprites(list(drawn), [b""] * len(drawn), stored, [-1] * len(drawn))
    return World(sprites, small_world().captions)


def image(kind, color, ground, side=40, left=5, top=12):
    """A drawing of `side` pixels before a ground, in a picture of 64."""
    picture = torch.tensor(list(GROUNDS.values())[ground])[:, None, None].repeat(1, 64, 64) / 255
    rgba = torch.from_numpy(drawing(kind, color)).permute(2, 0, 1)[None].float() / 255
    small = torch.nn.functional.interpolate(rgba, size=(side, side), mode="area")[0]
    place = picture[:, top : top + side, left : left + side]
    place.copy_(small[3:] * small[:3] / small[3:].clamp(min=1e-6) + (1 - small[3:]) * place)
    return picture.clamp(0, 1)


@pytest.mark.parametrize("ground", [0, 3])
@pytest.mark.parametrize(("kind", "color", "concept"), [("disc", BLUE, 10), ("ring", RED, 11), ("wide", RED, 13)])
def test_a_thing_is_named_wherever_it_stands_and_whatever_its_size(world, kind, color, concept, ground):
    judge = Neighbours(world)
    for side, left, top in ((50, 6, 7), (24, 36, 2)):
        assert judge.named(image(kind, color, ground, side, left, top))[0] == concept


def test_each_thing_is_named_once_the_likest_first(world):
    judge = Neighbours(world)
    named = judge.named(image("disc", RED, 0))
    assert named[:2] == (10, 11) and sorted(named) == [10, 11, 12, 13]  # a disc is more like a ring than like bars
    assert judge.named(image("disc", RED, 0), most=2) == (10, 11)
    assert judge.named(torch.ones(3, 64, 64)) == ()


def test_scores_tell_first_and_first_five(world):
    judge, seen = Neighbours(world), image("bar", RED, 0)
    for concept, scores in ((12, (True, True)), (11, (False, True)), (99, (False, False))):
        picture = Picture("thing", 0, (Placed(concept, 0, 0.5, 0.5, 0.8),))
        assert tuple(judge.score(seen, picture).values()) == scores
