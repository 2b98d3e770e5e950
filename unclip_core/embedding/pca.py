"""Principal components of CLIP's image embeddings: what they know first (Ramesh et al. 2022, section 4, figure 7)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..weights.files import CheckpointError, load_weights, save_weights
from .arithmetic import normalize, on_host

__all__ = ["PcaBasis", "fit_basis", "load_basis", "reconstruct", "save_basis"]

KIND = "unclip-pca"


@dataclass(frozen=True, eq=False)
class PcaBasis:
    """The directions in which a set of embeddings varies, the most first.

    Attributes:
        mean: of the set, float64 `[D]`.
        components: orthonormal rows, float64 `[K, D]`; the largest number of each is positive.
        variance: of the set along each component, float64 `[K]`, descending.
        total: variance of the set along all directions, kept or not.
        count: how many embeddings it was fitted on.
    """

    mean: Tensor
    components: Tensor
    variance: Tensor
    total: float
    count: int

    @property
    def explained(self) -> Tensor:
        """Share of the variance that the first 1, 2, … K components hold, `[K]`."""
        return self.variance.cumsum(0) / self.total


def fit_basis(embeds: Tensor, dimensions: int = 0) -> PcaBasis:
    """Principal components of `N` embeddings `[N, D]`, at most `dimensions` of them (0: all that there are).

    Raises:
        ValueError: there are fewer than two embeddings, they are all the same, hold NaN or infinity, or are so many
            that no direction stands out of float32's rounding, or `dimensions` is negative.
    """
    if embeds.ndim != 2 or len(embeds) < 2:
        raise ValueError(f"A PCA needs at least two embeddings [N, D], got shape {list(embeds.shape)}.")
    if dimensions < 0:
        raise ValueError(f"A PCA cannot keep {dimensions} dimensions: give 1 or more, or 0 for all.")
    rows = on_host(embeds)
    if not bool(torch.isfinite(rows).all()):
        raise ValueError("The embeddings hold NaN or infinity.")
    mean = rows.mean(0)
    _, spread, components = torch.linalg.svd(rows - mean, full_matrices=False)
    # Computed in float64, so that the rows' own rounding alone is cut; with that of half precision, times as many rows
    # as there may be, nothing at all would be left.
    eps = min(torch.finfo(embeds.dtype).eps, torch.finfo(torch.float32).eps)
    kept = spread > spread[0] * max(rows.shape) * eps
    if not bool(spread[0] > mean.norm() * 1e-6):
        raise ValueError("The embeddings are all the same: there is no direction in which they differ.")
    if not bool(kept.any()):
        raise ValueError(
            f"{len(rows)} embeddings of {rows.shape[1]} numbers in {embeds.dtype} are too many for their precision: no "
            "direction stands out of the rounding. Take fewer of them."
        )
    count = min(int(kept.sum()), dimensions or len(kept))
    variance = spread**2 / (len(rows) - 1)
    return PcaBasis(mean, _with_sign(components[:count]), variance[:count], float(variance.sum()), len(rows))


def reconstruct(basis: PcaBasis, embeds: Tensor, dimensions: int) -> Tensor:
    """Embeddings `[B, D]` with nothing but the mean and the first `dimensions` components, `[B, D]`.

    Their lengths are put back, so that they stay where the family's embeddings lie.

    Raises:
        ValueError: `dimensions` is not in 1..K, the widths differ, or nothing is left of an embedding.
    """
    if not 1 <= dimensions <= len(basis.components):
        raise ValueError(
            f"The basis has {len(basis.components)} dimensions, so there is none for {dimensions}: take "
            "fewer, or fit it on more embeddings."
        )
    if embeds.shape[-1] != len(basis.mean):
        raise ValueError(f"Embeddings of {embeds.shape[-1]} numbers do not fit a basis for {len(basis.mean)}.")
    rows, first = on_host(embeds), basis.components[:dimensions]
    near = basis.mean + (rows - basis.mean) @ first.T @ first
    return (normalize(near) * rows.norm(dim=-1, keepdim=True)).to(embeds)


def save_basis(path: str | Path, basis: PcaBasis, family: str) -> None:
    """Save a basis of a model family as safetensors.

    Raises:
        OSError: the file could not be written; nothing is left behind.
    """
    tensors = {name: getattr(basis, name) for name in ("mean", "components", "variance")}
    header = {"kind": KIND, "family": family, "total": basis.total, "count": basis.count}
    save_weights(path, tensors, header)


def load_basis(path: str | Path) -> tuple[PcaBasis, str]:
    """A basis saved by `save_basis`, and its model family.

    Raises:
        CheckpointError: the file is missing, damaged, or holds no basis.
    """
    tensors, header = load_weights(path)
    if not isinstance(header, dict) or header.get("kind") != KIND:
        raise CheckpointError(f"'{path}' holds no PCA basis: choose a file written by Save PCA Basis (unCLIP).")
    try:
        mean, components, variance = (tensors[name].double() for name in ("mean", "components", "variance"))
        basis = PcaBasis(mean, components, variance, float(header["total"]), int(header["count"]))
        family = str(header["family"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"'{path}' is no whole PCA basis ({error!r}): save it again.") from error
    if mean.ndim != 1 or components.shape != (len(variance), len(mean)) or not len(variance):
        shapes = [list(each.shape) for each in (mean, components, variance)]
        raise CheckpointError(f"'{path}' holds a mean, components and variance whose shapes {shapes} do not fit.")
    return basis, family


def _with_sign(components: Tensor) -> Tensor:
    """The sign of a component is arbitrary: its largest number is made positive."""
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return components * torch.sign(largest)
