"""Improved precision and recall: how much of one set of feature vectors lies within the other's manifold, float64."""

import torch
from torch import Tensor

from .distances import check_sets

ROWS = 1024
"""Rows of a matrix of distances that are in memory at once."""


def precision_recall(true: Tensor, drawn: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Shares in 0..1: of `drawn` `[m, D]` within the manifold of `true` `[n, D]`, and of `true` within that of `drawn`.

    A set's manifold is the union of balls round its vectors, each reaching to the vector's k-th nearest neighbour in
    its own set (Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2; k = 3 there).

    Raises:
        ValueError: the sets do not go together, or one has no more than `neighbours` vectors.
    """
    if neighbours < 1:
        raise ValueError(f"The number of neighbours must be 1 or more, not {neighbours}.")
    check_sets(true, drawn, neighbours + 1)
    true, drawn = true.double(), drawn.double()
    return within(drawn, true, neighbours), within(true, drawn, neighbours)


def within(vectors: Tensor, manifold: Tensor, neighbours: int) -> float:
    """The share of `vectors` `[m, D]` that lie within the manifold of the set `manifold` `[n, D]`."""
    reach = radii(manifold, neighbours)
    inside = [(distances(rows, manifold) <= reach).any(dim=1) for rows in vectors.split(ROWS)]
    return float(torch.cat(inside).double().mean())


def radii(vectors: Tensor, neighbours: int) -> Tensor:
    """Each vector's distance `[n]` from its k-th nearest other one in the set."""
    # The nearest of all is the vector itself.
    return torch.cat([distances(rows, vectors).kthvalue(neighbours + 1, dim=1).values for rows in vectors.split(ROWS)])


def distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Euclidean distances `[a, b]`; subtracted pair by pair, so that a vector's from itself is 0 and no other."""
    return torch.cdist(rows, columns, compute_mode="donot_use_mm_for_euclid_dist")
