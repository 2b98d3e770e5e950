"""Sharpness of outlines in images."""

import torch
from torch import Tensor
from torch.nn import functional as F

REACH = 6
"""Pixels farther than this from the half-way contour are no part of the outline."""
PLAIN = 0.05
"""Least RGB distance from the background at which something counts as drawn."""


def edge_width(image: Tensor) -> float:
    """Measure the mean 10–90 % width, in pixels, of the outline of the only thing on a plain background.

    The pixels with a coverage between 0.1 and 0.9 are counted and divided by the outline's length. By the co-area
    formula that length is the sum of the coverage's gradient, averaged over its levels. An ideally antialiased edge is
    one pixel from 0 to 100 %, so 0.8 px.

    Args:
        image: `[3, H, W]` in 0..1; the thing is of one colour and does not touch the frame.

    Raises:
        ValueError: the image is plain.
    """
    coverage = _coverage(image)
    # A 3 × 3 mean keeps the outline's length and takes out noise, whose gradient would add to it.
    smooth = F.avg_pool2d(F.pad(coverage[None], (1, 1, 1, 1), mode="replicate"), 3, 1)[0]
    down, across = smooth.diff(dim=0)[:, :-1], smooth.diff(dim=1)[:-1]
    gradient = (down.square() + across.square()).sqrt()
    near = _near_contour(coverage)
    between = (coverage > 0.1) & (coverage < 0.9) & near
    return float(between.sum() / gradient[near[:-1, :-1]].sum())


def _coverage(image: Tensor) -> Tensor:
    """Project each pixel onto the line from the background's colour (0) to the thing's (1): `[H, W]`."""
    frame = torch.cat([image[:, 0], image[:, -1], image[:, :, 0], image[:, :, -1]], dim=1)
    contrast = image - frame.median(dim=1).values[:, None, None]
    distance = contrast.square().sum(dim=0).sqrt()
    if distance.max() < PLAIN:
        raise ValueError("a plain image has no outline to measure")
    ink = contrast[:, distance > distance.max() / 2].median(dim=1).values
    return (contrast * ink[:, None, None]).sum(dim=0) / ink.square().sum()


def _near_contour(coverage: Tensor) -> Tensor:
    """Return where coverages above and below one half both lie within REACH: bool `[H, W]`."""
    inside = (coverage > 0.5).float()[None]
    return (F.max_pool2d(inside, 2 * REACH + 1, 1, REACH) > -F.max_pool2d(-inside, 2 * REACH + 1, 1, REACH))[0]
