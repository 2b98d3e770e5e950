"""Distances between two sets of feature vectors, float64: Fréchet's (FID) and the kernel's (KID).

torchmetrics gives the same figures in float64 (KID with one subset of all, FID up to a relative 4e-8 where n ≤ D), but
has no precision and recall, takes sets of one size for KID, and its import costs more than the measuring.
"""

import torch
from torch import Tensor

ROWS = 1024
"""Rows of a kernel's matrix that are in memory at once."""


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """The squared Fréchet distance of two Gaussians with the means and covariances of the sets `[n, D]` and `[m, D]`.

    ‖μ₁ - μ₂‖² + Tr(Σ₁ + Σ₂ - 2 (Σ₁Σ₂)^½) (Heusel et al. 2017, arXiv 1706.08500, eq. 6), with the covariances of
    samples (n - 1). Expected too large for few samples: only figures of the same n compare.

    The root's trace is the sum of the singular values of R₁R₂ᵀ, where Σ = RᵀR: no root is taken of a matrix, so that
    nothing is lost where Σ has no inverse (n ≤ D).

    Raises:
        ValueError: the sets do not go together, or one has fewer than two vectors.
    """
    first, second = _checked(first, second)
    shift = (first.mean(dim=0) - second.mean(dim=0)).square().sum()
    one, two = _root(first), _root(second)
    overlap = torch.linalg.svdvals(one @ two.T).sum()
    # Rounding may make the distance of two equal sets slightly negative.
    return max(0.0, float(shift + one.square().sum() + two.square().sum() - 2 * overlap))


def kernel_distance(first: Tensor, second: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy of `[n, D]` and `[m, D]` under k(x, y) = (xᵀy / D + 1)³.

    Bińkowski et al. 2018 (arXiv 1801.01401), section 4 and eq. 4; over all vectors at once, not the mean over subsets.
    Expected 0 for two samples of one distribution, whatever n, and so below 0 about half of the time.

    Raises:
        ValueError: the sets do not go together, or one has fewer than two vectors.
    """
    first, second = _checked(first, second)
    within = sum(_within(vectors) for vectors in (first, second))
    across = sum(float(_kernel(rows, second).sum()) for rows in first.split(ROWS))
    return within - 2 * across / (len(first) * len(second))


def _within(vectors: Tensor) -> float:
    """The kernel's mean over all pairs of different vectors of a set."""
    every = sum(float(_kernel(rows, vectors).sum()) for rows in vectors.split(ROWS))
    own = float((vectors.square().sum(dim=1) / vectors.shape[1] + 1).pow(3).sum())
    return (every - own) / (len(vectors) * (len(vectors) - 1))


def _kernel(rows: Tensor, columns: Tensor) -> Tensor:
    return (rows @ columns.T / rows.shape[1] + 1).pow(3)


def _root(vectors: Tensor) -> Tensor:
    """R with RᵀR the covariance of `[n, D]`, of at most D rows."""
    centred = (vectors - vectors.mean(dim=0)) / (len(vectors) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(centred) > centred.shape[1] else centred


def _checked(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    check_sets(first, second, 2)
    return first.double(), second.double()


def check_sets(first: Tensor, second: Tensor, least: int) -> None:
    """Refuse sets that are no `[n, D]` and `[m, D]` of finite numbers with n and m at least `least`.

    Raises:
        ValueError: says what is wrong with which shapes.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(
            f"Two sets of vectors [n, D] and [m, D] are needed, not {list(first.shape)} and {list(second.shape)}."
        )
    if min(len(first), len(second)) < least:
        raise ValueError(f"At least {least} vectors are needed in each set, there are {len(first)} and {len(second)}.")
    if not bool(torch.isfinite(first).all() and torch.isfinite(second).all()):
        raise ValueError("The sets hold NaN or infinity.")
