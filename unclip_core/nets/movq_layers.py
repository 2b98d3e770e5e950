"""The layers of MoVQ: each runs on whole features, and all but attention on rows of them too (`feature_rows`)."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolutions import Conv3x3
from .feature_rows import Rows, Shape, Statistics, Strip, conv_rows, group_norm
from .layers import attend
from .linear import Linear
from .memory_formats import Conv2d
from .widening import GroupNorm

EPS = 1e-6
QUERIES_AT_ONCE = 1024  # of attention over an image, whose scores would else take a gigabyte at 1024 px

MakeNorm = Callable[[int], "Norm | SpatialNorm"]
"""(channels) -> the normalisation of an encoder or of a decoder."""


class Norm(nn.GroupNorm):
    """Group normalisation; the encoder's."""

    def forward(self, x: Tensor, code: Tensor | None = None, strip: Strip | None = None) -> Tensor:
        """Normalise x `[B, C, H, W]`, or a strip of it; the code is not read."""
        return group_norm(self, x, strip)


class SpatialNorm(nn.Module):
    """Group normalisation whose scale and shift are read off the latents, place by place (Zheng et al. 2022, eq. 5)."""

    def __init__(self, groups: int, channels: int, code_dim: int) -> None:
        """Make the normalisation and the projections of the latents."""
        super().__init__()
        self.norm = GroupNorm(groups, channels, EPS)
        self.scale = Conv2d(code_dim, channels, 1)
        self.shift = Conv2d(code_dim, channels, 1)

    @property
    def num_groups(self) -> int:
        """Number of groups."""
        return self.norm.num_groups

    def forward(self, x: Tensor, code: Tensor, strip: Strip | None = None) -> Tensor:
        """Normalise x `[B, C, H, W]`, or a strip of it, under the latents `code` `[B, D, h, w]` of the whole image."""
        normed = group_norm(self.norm, x, strip)
        scale, shift = self._at(self.scale(code), x, strip), self._at(self.shift(code), x, strip)
        return torch.addcmul(shift, normed, scale) if torch.is_grad_enabled() else normed.mul_(scale).add_(shift)

    @staticmethod
    def _at(maps: Tensor, x: Tensor, strip: Strip | None) -> Tensor:
        """The maps' nearest value at each place of x. Projecting before enlarging is the same, and cheaper."""
        first, height = (0, x.shape[2]) if strip is None else (strip.first, strip.height)
        down, across = height // maps.shape[2], x.shape[3] // maps.shape[3]
        above, below = first // down, -(-(first + x.shape[2]) // down)
        large = F.interpolate(maps[:, :, above:below], scale_factor=(down, across), mode="nearest")
        return large[:, :, first - above * down :][:, :, : x.shape[2]]


class Stem(Conv2d):
    """The first 3x3 convolution."""

    recomputed = False

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Make the weights."""
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """x `[B, C, H, W]` -> `[B, C', H, W]`."""
        return super().forward(x)

    def shape(self, shape: Shape) -> Shape:
        """Shape of the result for an input of `shape`."""
        return shape[0], self.out_channels, *shape[2:]

    def rows(self, source: Rows, code: Tensor | None) -> Rows:
        """The result as rows."""
        height = source.shape[2]
        return source.through(self.shape(source.shape), lambda a, b: conv_rows(self, source.read, height, a, b))


class Block(nn.Module):
    """Residual block without a time: norm1 → SiLU → conv1 → norm2 → SiLU → conv2, plus the input."""

    recomputed = False

    def __init__(self, in_channels: int, out_channels: int, norm: MakeNorm) -> None:
        """Make the layers; the input goes through a 1x1 convolution where the width changes."""
        super().__init__()
        self.norm1, self.norm2 = norm(in_channels), norm(out_channels)
        self.conv1 = Conv3x3(in_channels, out_channels)
        self.conv2 = Conv3x3(out_channels, out_channels)
        self.skip = nn.Identity() if in_channels == out_channels else Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """x `[B, C, H, W]` -> `[B, C', H, W]`; code: the latents, in a decoder."""
        h = self.conv1(_silu(self.norm1(x, code)))
        h = self.conv2(_silu(self.norm2(h, code)))
        return h + self.skip(x)

    def shape(self, shape: Shape) -> Shape:
        """Shape of the result for an input of `shape`."""
        return shape[0], self.conv2.out_channels, *shape[2:]

    def rows(self, source: Rows, code: Tensor | None) -> Rows:
        """The result as rows; sweeps over the input for the statistics of both norms."""
        height, made = source.shape[2], self.shape(source.shape)
        first = _normed(self.norm1, source, code)
        hidden = source.through(made, lambda a, b: conv_rows(self.conv1, first, height, a, b))
        second = _normed(self.norm2, hidden, code)

        def read(a: int, b: int) -> Tensor:
            return conv_rows(self.conv2, second, height, a, b).add_(self.skip(source.read(a, b)))

        return hidden.through(made, read)


class Attention(nn.Module):
    """Self-attention of an image with one head as wide as its channels; the result is added to the input."""

    def __init__(self, channels: int, norm: MakeNorm) -> None:
        """Make norm and projections."""
        super().__init__()
        self.norm = norm(channels)
        self.to_q, self.to_k, self.to_v, self.to_out = (Linear(channels, channels) for _ in range(4))

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """x `[B, C, H, W]` -> the same shape."""
        tokens = self.norm(x, code).flatten(2).transpose(1, 2)
        keys, values = self.to_k(tokens)[:, None], self.to_v(tokens)[:, None]
        queries = self.to_q(tokens)[:, None].split(QUERIES_AT_ONCE, dim=2)
        seen = torch.cat([attend(some, keys, values) for some in queries], dim=2)[:, 0]
        return x + self.to_out(seen).transpose(1, 2).reshape(x.shape)


class Down(nn.Module):
    """Half the size: a 3x3 convolution of stride 2 over the image with one more row below and column to the right."""

    recomputed = True

    def __init__(self, channels: int) -> None:
        """Make the weights."""
        super().__init__()
        self.conv = Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """x `[B, C, H, W]` -> `[B, C, H / 2, W / 2]`."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))

    def shape(self, shape: Shape) -> Shape:
        """Shape of the result for an input of `shape`."""
        return shape[0], shape[1], shape[2] // 2, shape[3] // 2

    def rows(self, source: Rows, code: Tensor | None) -> Rows:
        """The result as rows."""
        height = source.shape[2]

        def read(first: int, last: int) -> Tensor:
            x = source.read(2 * first, min(height, 2 * last + 1))
            return self.conv(F.pad(x, (0, 1, 0, int(2 * last == height))))

        return source.through(self.shape(source.shape), read, places=4)


class Up(nn.Module):
    """Twice the size: each pixel four times, then a 3x3 convolution."""

    recomputed = True

    def __init__(self, channels: int) -> None:
        """Make the weights."""
        super().__init__()
        self.conv = Conv3x3(channels, channels)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """x `[B, C, H, W]` -> `[B, C, 2 H, 2 W]`."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))

    def shape(self, shape: Shape) -> Shape:
        """Shape of the result for an input of `shape`."""
        return shape[0], shape[1], 2 * shape[2], 2 * shape[3]

    def rows(self, source: Rows, code: Tensor | None) -> Rows:
        """The result as rows."""

        def enlarged(first: int, last: int) -> Tensor:
            above = first // 2
            x = F.interpolate(source.read(above, (last + 1) // 2), scale_factor=2, mode="nearest")
            return x[:, :, first - 2 * above : last - 2 * above]

        made = self.shape(source.shape)
        return source.through(made, lambda a, b: conv_rows(self.conv, enlarged, made[2], a, b))


class Head(nn.Module):
    """The last layers: norm, SiLU, 3x3 convolution."""

    recomputed = False

    def __init__(self, in_channels: int, out_channels: int, norm: MakeNorm) -> None:
        """Make the layers."""
        super().__init__()
        self.norm = norm(in_channels)
        self.conv = Conv3x3(in_channels, out_channels)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """x `[B, C, H, W]` -> `[B, C', H, W]`."""
        return self.conv(_silu(self.norm(x, code)))

    def shape(self, shape: Shape) -> Shape:
        """Shape of the result for an input of `shape`."""
        return shape[0], self.conv.out_channels, *shape[2:]

    def rows(self, source: Rows, code: Tensor | None) -> Rows:
        """The result as rows; sweeps over the input for the norm's statistics."""
        height, normed = source.shape[2], _normed(self.norm, source, code)
        return source.through(self.shape(source.shape), lambda a, b: conv_rows(self.conv, normed, height, a, b))


def _silu(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient needs what was there: all of these are fresh."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def _normed(norm: Norm | SpatialNorm, source: Rows, code: Tensor | None) -> Callable[[int, int], Tensor]:
    """Read rows through the norm and SiLU; sweeps over the source for its statistics."""
    found = Statistics.of(source, norm.num_groups, EPS)
    height = source.shape[2]
    return lambda first, last: _silu(norm(source.read(first, last), code, found.at(first, height)))
