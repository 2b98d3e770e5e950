"""How sharp the outlines of things in images are."""

import torch
from torch import Tensor
from torch.nn import functional as F

REACH = 6
"""What is further from the middle of the way than so many px is no part of the outline."""
PLAIN = 0.05
"""Where no colour is further from the ground than this, nothing is drawn."""


def edge_width(image: Tensor) -> float:
    """Mean width in px of the outline of the only thing on a plain ground, from 10 % to 90 % of the way between them.

    image: `[3, H, W]` in 0..1; the thing is of one colour and leaves the frame free. The pixels on the way are
    counted, and divided by the outline's length: by the co-area formula that is the sum of the way's gradients,
    averaged over the levels of the way. A sharp true outline is one pixel from 0 to 100 %, so 0.8 px.

    Raises ValueError for a plain image.
    """
    way = _way(image)
    # Neighbours' means have outlines of the same length, and less noise, which has a length too.
    even = F.avg_pool2d(F.pad(way[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
    down, across = even.diff(dim=0)[:, :-1], even.diff(dim=1)[:-1]
    steepness = (down.square() + across.square()).sqrt()
    near = _near_the_middle(way)
    between = (way > 0.1) & (way < 0.9) & near
    return float(between.sum() / steepness[near[:-1, :-1]].sum())


def _way(image: Tensor) -> Tensor:
    """How far each pixel is on the way from the ground (0), which is at the frame, to the thing (1), `[H, W]`."""
    frame = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
    steps = image - frame.median(dim=1).values[:, None, None]
    apart = steps.square().sum(dim=0).sqrt()
    if apart.max() < PLAIN:
        raise ValueError("a plain image has no outline to measure")
    ink = steps[:, apart > apart.max() / 2].median(dim=1).values
    return (steps * ink[:, None, None]).sum(dim=0) / ink.square().sum()


def _near_the_middle(way: Tensor) -> Tensor:
    """Which pixels have both sides of the middle within REACH, bool `[H, W]`."""
    side = (way > 0.5).float()[None]
    return (F.max_pool2d(side, 2 * REACH + 1, 1, REACH) > -F.max_pool2d(-side, 2 * REACH + 1, 1, REACH))[0]
