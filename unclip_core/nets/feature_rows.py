"""Features that are computed a few rows at a time, so that a large image never stands in memory whole at full width.

A layer that looks at its neighbourhood reads the rows around those that it is asked for; one that looks at the whole
image (group normalisation) gets its statistics in a sweep beforehand. So each number is computed by the same
operations as in one piece, and no seam can show. What it costs is that convolutions before a normalisation run twice.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolutions import winograd_is_faster
from .group_norm import fused
from .pooled_statistics import part_of, pooled
from .widening import weights_for
from .winograd import winograd

Shape = tuple[int, int, int, int]
Read = Callable[[int, int], Tensor]

STRIP_ELEMENTS = 2**23
"""Size of the strips that are computed at once; 32 MB in float32."""
MIN_STRIP_ROWS = 8  # more than any layer reads beyond its own rows


@dataclass(frozen=True)
class Rows:
    """Features `[B, C, H, W]` = `shape`; `read(first, last)` computes their rows, `[B, C, last - first, W]`.

    `widest` is the largest number of channels that reading them goes through, by which strips are made: three channels
    that are computed from 128 are not read all at once.
    """

    shape: Shape
    read: Read
    widest: int

    @classmethod
    def of(cls, x: Tensor) -> "Rows":
        """Rows of features that are there."""
        shape = (x.shape[0], x.shape[1], x.shape[2], x.shape[3])
        return cls(shape, lambda first, last: x[:, :, first:last], x.shape[1])

    def through(self, shape: Shape, read: Read, places: int = 1) -> "Rows":
        """Rows of that shape that a layer computes of these, `places` of them for each of its own."""
        return Rows(shape, read, max(self.widest * places, shape[1]))

    def strips(self) -> Iterator[tuple[int, Tensor]]:
        """All rows in strips, each with the number of its first row."""
        batch, _, height, width = self.shape
        count = max(MIN_STRIP_ROWS, STRIP_ELEMENTS // (batch * self.widest * width))
        for first in range(0, height, count):
            yield first, self.read(first, min(height, first + count))

    def stored(self, into: Tensor | None = None) -> Tensor:
        """All rows as a tensor.

        Args:
            into: where to write them; may be what they are computed from, as a strip is written only after the next
                one has been computed.
        """
        waiting: tuple[int, Tensor] | None = None
        for first, strip in self.strips():
            if into is None:
                last = strip.stride(1) == 1 < strip.shape[1]  # channels last, be it a part of something larger
                into = torch.empty(
                    self.shape,
                    dtype=strip.dtype,
                    device=strip.device,
                    memory_format=torch.channels_last if last else torch.contiguous_format,
                )
            if waiting is not None:
                _write(into, *waiting)
            waiting = first, strip
        assert into is not None and waiting is not None  # there is at least one strip
        _write(into, *waiting)
        return into


class Strip(NamedTuple):
    """Where a strip lies, for a layer that has to know.

    Attributes:
        first: its first row in the whole image.
        height: of the whole image.
        mean: of each group of the whole image, `[B, groups]`.
        scale: the reciprocal of its standard deviation, `[B, groups]`.
    """

    first: int
    height: int
    mean: Tensor
    scale: Tensor


class Statistics(NamedTuple):
    """Mean and reciprocal standard deviation of each group of an image, `[B, groups]`, float32 or float64."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, source: Rows, groups: int, eps: float) -> "Statistics":
        """Gather them over all rows."""
        parts = []
        for _, strip in source.strips():
            own = strip.unflatten(1, (groups, -1)).flatten(2).to(torch.promote_types(strip.dtype, torch.float32))
            parts.append(part_of(own, (2,)))
        mean, variance = pooled(parts)
        return cls(mean.to(parts[0][1]), (variance + eps).rsqrt().to(parts[0][1]))

    def at(self, first: int, height: int) -> Strip:
        """The strip that begins in that row."""
        return Strip(first, height, *self)


def group_norm(norm: nn.GroupNorm, x: Tensor, strip: Strip | None) -> Tensor:
    """Normalise features, or a strip of them by the statistics of the whole."""
    if strip is None:
        made = fused(norm, x, silu=False)
        return F.group_norm(x, norm.num_groups, *weights_for(norm, x), norm.eps) if made is None else made
    repeats = x.shape[1] // norm.num_groups
    mean, scale = (value.repeat_interleave(repeats, 1) for value in (strip.mean, strip.scale))
    scale = scale * norm.weight
    shift = norm.bias - mean * scale
    return torch.addcmul(shift.to(x)[..., None, None], x, scale.to(x)[..., None, None])


def conv_rows(conv: nn.Conv2d, read: Read, height: int, first: int, last: int) -> Tensor:
    """Rows `first` to `last` of a 3x3 convolution with padding 1 over what `read` gives, an image of `height` rows."""
    above = max(0, first - 1)
    x = read(above, min(height, last + 1))
    weight, bias = weights_for(conv, x)
    if winograd_is_faster(x, weight):
        return winograd(x, weight, bias)[:, :, first - above :][:, :, : last - first]
    if first == 0 or last == height:
        x = F.pad(x, (0, 0, int(first == 0), int(last == height)))
    return F.conv2d(x, weight, bias, padding=(0, 1))


def _write(into: Tensor, first: int, strip: Tensor) -> None:
    into[:, :, first : first + strip.shape[2]] = strip
