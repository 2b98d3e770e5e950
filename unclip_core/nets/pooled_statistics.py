"""Mean and variance of an image that is seen in parts."""

from collections.abc import Sequence

import torch
from torch import Tensor

Part = tuple[int, Tensor]
"""How many numbers a part has, and their mean and variance, `[2, …]`."""


def part_of(x: Tensor, dims: Sequence[int]) -> Part:
    """What `pooled` has to know of a part: of its numbers along `dims`, in x's own precision, on its device."""
    variance, mean = torch.var_mean(x, dims, correction=0)
    return x.numel() // max(1, mean.numel()), torch.stack([mean, variance])


def pooled(parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    """Mean and variance of all parts together, float64 on the CPU.

    Not of their sums and squares, which would have to be summed up in float64 where they lie, and there are devices
    without it: of their own means and variances nothing cancels (Chan, Golub and LeVeque 1979).
    """
    means, variances = torch.stack([own for _, own in parts]).cpu().double().unbind(1)
    share = torch.tensor([count for count, _ in parts], dtype=torch.float64)
    share = (share / share.sum()).view(-1, *[1] * (means.ndim - 1))
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0)
