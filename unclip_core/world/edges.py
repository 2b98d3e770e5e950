"""How sharp the outlines of things in pictures are."""

from torch import Tensor
from torch.nn import functional as F

from .scenes import Scene
from .vocabulary import BACKGROUNDS, COLORS

INSIDE, OUTSIDE = 0.75, 0.25
REACH = 6
"""What is further from the middle of the way than so many px is no part of the outline."""


def edge_width(picture: Tensor, scene: Scene) -> float:
    """Mean width in px of the outline of a scene's only thing, from 10 % to 90 % of the way from ground to ink.

    picture: `[3, H, W]` in 0..1 of a scene with one thing in a colour that has a name. The pixels on the way are
    counted, and divided by the outline's length: by the co-area formula that is the sum of the way's gradients,
    averaged over the levels of the way. Ground and ink are the picture's own. A sharp true outline is one pixel from
    0 to 100 %, so 0.8 px.

    Raises ValueError for a scene with more than one thing, or a thing of no named colour.
    """
    if len(scene.things) != 1 or scene.things[0].ink is not None:
        raise ValueError("the width of an outline is measured on scenes with one thing in a named colour")
    way = _way(picture, *_colours(scene, picture))
    ink, ground = (picture[:, part].median(dim=1).values for part in (way > INSIDE, way < OUTSIDE))
    way = _way(picture, ground, ink)
    down, across = way.diff(dim=0)[:, :-1], way.diff(dim=1)[:-1]
    steepness = (down.square() + across.square()).sqrt()
    near = _near_the_middle(way)
    between = (way > 0.1) & (way < 0.9) & near
    return float(between.sum() / steepness[near[:-1, :-1]].sum())


def _colours(scene: Scene, like: Tensor) -> tuple[Tensor, Tensor]:
    """Ground and ink `[3]` in 0..1."""
    ground = tuple(BACKGROUNDS.values())[scene.background]
    ink = tuple(COLORS.values())[scene.things[0].color]
    return like.new_tensor(ground) / 255, like.new_tensor(ink) / 255


def _way(picture: Tensor, ground: Tensor, ink: Tensor) -> Tensor:
    """How far each pixel is on the way from ground (0) to ink (1), `[H, W]`."""
    step = (ink - ground)[:, None, None]
    return ((picture - ground[:, None, None]) * step).sum(dim=0) / step.square().sum()


def _near_the_middle(way: Tensor) -> Tensor:
    """Which pixels have both sides of the middle within REACH, bool `[H, W]`."""
    side = (way > 0.5).float()[None]
    return (F.max_pool2d(side, 2 * REACH + 1, 1, REACH) > -F.max_pool2d(-side, 2 * REACH + 1, 1, REACH))[0]
