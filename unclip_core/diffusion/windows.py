"""MultiDiffusion: a net for squares on a canvas of any size, by overlapping windows whose predictions are blended."""

import math

import torch
from torch import Tensor

from .denoiser import Denoiser, Prediction

__all__ = ["Windowed", "starts", "window_weight"]


class Windowed:
    """Wraps a denoiser of squares as a denoiser of canvases (MultiDiffusion, Bar-Tal et al. 2023, eq. 5 and 6).

    Every window is denoised on its own, as if it were the image; the clean samples and variance fractions are
    averaged where windows overlap, each weighed by its distance from its window's edge, so that no seam shows.

    Args:
        denoiser: takes `[B, C, size, size]`.
        stride: between windows, 1..size; the last one ends at the canvas's edge.
    """

    def __init__(self, denoiser: Denoiser, size: int, stride: int) -> None:
        """Check the numbers.

        Raises:
            ValueError: unless 1 <= stride <= size.
        """
        if not 1 <= stride <= size:
            raise ValueError(f"windows of {size} need a stride within 1..{size}, got {stride}")
        self._denoiser, self._size, self._stride = denoiser, size, stride

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return the blended prediction for x `[B, C, H, W]`.

        Raises:
            ValueError: H or W is below the window.
        """
        height, width = x.shape[-2:]
        rows, columns = starts(height, self._size, self._stride), starts(width, self._size, self._stride)
        if len(rows) == len(columns) == 1:
            return self._denoiser(x, t)
        weight = window_weight(self._size).to(x)
        x0, fraction, total = torch.zeros_like(x), torch.zeros_like(x), x.new_zeros(height, width)
        for top in rows:
            for left in columns:
                here = (..., slice(top, top + self._size), slice(left, left + self._size))
                prediction = self._denoiser(x[here], t)
                x0[here] += weight * prediction.x0
                fraction[here] += weight * prediction.variance_fraction
                total[here] += weight
        return Prediction(x0 / total, fraction / total)

    def count(self, height: int, width: int) -> int:
        """Return how many windows a canvas takes, which is how many calls of the denoiser."""
        return len(starts(height, self._size, self._stride)) * len(starts(width, self._size, self._stride))


def starts(length: int, size: int, stride: int) -> list[int]:
    """Return where windows of ``size`` begin, so that they cover 0..length, evenly, ``stride`` or less apart.

    Raises:
        ValueError: the length is below the size.
    """
    if length < size:
        raise ValueError(f"a canvas of {length} px is smaller than the window of {size} px that is to cover it")
    steps = math.ceil((length - size) / stride)
    return [round(i * (length - size) / steps) for i in range(steps + 1)] if steps else [0]


def window_weight(size: int) -> Tensor:
    """Return the weight of a window's pixels [size, size]: a pyramid, highest in the middle, positive everywhere."""
    ramp = torch.arange(size, dtype=torch.float64)
    ramp = torch.minimum(ramp, ramp.flip(0)) + 1
    return torch.outer(ramp, ramp) / ramp.max() ** 2
