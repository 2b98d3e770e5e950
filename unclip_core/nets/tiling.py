"""Large images through a convolutional net in tiles: memory does not grow with the image, and nothing shows.

Two things tell a tile from its place in the whole. It does not see beyond its edge: tiles overlap, and what lies near
an edge is not used. And group normalisation divides by the statistics of what it is given: here all tiles share
those of the whole image, which are gathered in a sweep over the tiles first. So every tile computes the same
function of what it sees, and two tiles agree where both see enough.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batch_chunks import ConditionedNet, chunked, elements_per_image
from .layers import Times
from .pooled_statistics import Part, part_of, pooled
from .step_graphs import stepped
from .upsampler import UpsamplerNet

MAX_TILE_ELEMENTS = 2**25
"""Size of the widest features of an image that is run whole: 128 MB in float32."""
OVERLAP = 64
"""How far a tile reaches beyond its own part on each side, px."""
TOLERANCE = 1e-5
"""Sweeps end when no norm's statistics move more than this any longer, in its own standard deviations.

The first norm's are right after one sweep, the second's after two, and so on, so as many sweeps as norms make all of
them exact; all come about four times nearer with each sweep (measured on an image of uneven contrast). Later steps
start from the statistics of the step before.
"""


def tiled_if_large(
    net: UpsamplerNet, height: int, width: int, tile: int | None = None, times: Times | None = None
) -> ConditionedNet:
    """The net (x, t, low) for images of that size: as it is, or in tiles of `tile` px.

    Args:
        tile: None tiles images whose features are more than MAX_TILE_ELEMENTS, into parts that are not; 0 never tiles.
        times: the embeddings of the run's steps, if they were computed beforehand.

    Raises:
        ValueError: a tile below 0, or for a net that attends over the whole image.
    """
    if tile is None:
        whole = elements_per_image(height * width, net.params) <= MAX_TILE_ELEMENTS
        tile = 0 if whole else _largest_tile(net)
    if tile < 0:
        raise ValueError(f"a tile has a side of 1 px or more (0: no tiles), got {tile}")
    if tile == 0 or (height <= tile and width <= tile):
        return chunked(stepped(net, net, times), net.params)
    return Tiled(net, tile, times=times)


@dataclass(frozen=True)
class Span:
    """A tile's extent along one side, px.

    Attributes:
        start: first pixel that the tile sees.
        stop: behind the last pixel that it sees.
        first: first pixel of its own part.
        last: behind the last pixel of its own part.
        fade: on each side of an inner edge of the own part, over which neighbouring tiles are blended.
    """

    start: int
    stop: int
    first: int
    last: int
    fade: int

    def weights(self, length: int) -> Tensor:
        """How much each pixel of the tile counts, float32 [stop - start]; over all spans of a side they sum to 1."""
        place = torch.arange(self.start, self.stop, dtype=torch.float32) + 0.5
        weight = torch.ones_like(place)
        if self.first > 0:
            weight = weight * ((place - self.first + self.fade) / (2 * self.fade)).clamp(0, 1)
        if self.last < length:
            weight = weight * ((self.last + self.fade - place) / (2 * self.fade)).clamp(0, 1)
        return weight


def spans(length: int, own: int, overlap: int, stride: int) -> list[Span]:
    """Cut a side of `length` px in parts of about `own` px; all edges are multiples of `stride` but the last."""
    own, overlap = max(stride, own // stride * stride), max(stride, -(-overlap // stride) * stride)
    firsts = range(0, length, own)
    return [
        Span(
            max(0, first - overlap),
            min(length, first + own + overlap),
            first,
            min(length, first + own),
            max(1, min(overlap // 2, own) // 2),
        )
        for first in firsts
    ]


class Tiled:
    """An upsampler's net (x `[B, C, H, W]`, t `[B]`, low) -> raw output, run tile by tile, image by image."""

    def __init__(self, net: UpsamplerNet, tile: int, overlap: int | None = None, times: Times | None = None) -> None:
        """`tile`: side of a tile's own part, px; `overlap`: None for OVERLAP.

        Raises:
            ValueError: attention.
        """
        if any(net.params.attention) or net.params.mid_attention:
            raise ValueError("a net that attends over the whole image cannot be run in tiles")
        self._net, self._tile, self._overlap = net, tile, OVERLAP if overlap is None else overlap
        self._times = times
        self._norms: dict[int, SharedNorms] = {}  # by the image's row, from step to step

    def __call__(self, x: Tensor, t: Tensor, low: Tensor) -> Tensor:
        """Run the net on all tiles of all images."""
        return torch.cat([self._image(row, x[row, None], t[row, None], low[row, None]) for row in range(len(x))])

    def _image(self, row: int, x: Tensor, t: Tensor, low: Tensor) -> Tensor:
        norms = self._norms.setdefault(row, SharedNorms(self._net))
        with norms:
            for _ in range(norms.count):
                for _ in self._tiles(norms, x, t, low):
                    pass
                if norms.settle() <= TOLERANCE:
                    break
            return self._joined(norms, x, t, low)

    def _joined(self, norms: "SharedNorms", x: Tensor, t: Tensor, low: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        dtype = torch.promote_types(x.dtype, low.dtype)  # a residual is as precise as `low`, whatever the net's is
        out = x.new_zeros(1, self._net.params.out_channels, height, width, dtype=dtype)
        for down, across, made in self._tiles(norms, x, t, low):
            weight = down.weights(height)[:, None] * across.weights(width)
            out[..., down.start : down.stop, across.start : across.stop] += made * weight.to(made)
        return out

    def _tiles(self, norms: "SharedNorms", x: Tensor, t: Tensor, low: Tensor) -> Iterator[tuple[Span, Span, Tensor]]:
        height, width = x.shape[-2:]
        cut = (self._tile, self._overlap, self._net.unet.stride)
        for down in spans(height, *cut):
            for across in spans(width, *cut):
                norms.place(down, across)
                part = (..., slice(down.start, down.stop), slice(across.start, across.stop))
                yield down, across, self._net(x[part], t, low[part], self._times)


class SharedNorms:
    """Makes all group norms of a net use statistics of the whole image while it runs in tiles, as a context manager.

    Each tile's own part is counted once. Until the first `settle`, a tile is normalised by its own statistics.
    """

    def __init__(self, net: nn.Module) -> None:
        """Find the norms."""
        self._norms = [module for module in net.modules() if isinstance(module, nn.GroupNorm)]
        self._seen: dict[nn.GroupNorm, list[Part]] = {}
        self._exact: dict[nn.GroupNorm, tuple[Tensor, Tensor]] = {}
        self._known: dict[nn.GroupNorm, tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> None:
        self._seen.clear()
        self._hooks = [norm.register_forward_hook(self._hook) for norm in self._norms]

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def place(self, down: Span, across: Span) -> None:
        """Say where the next tile lies."""
        self._place = (down, across)

    @property
    def count(self) -> int:
        """How many norms there are."""
        return len(self._norms)

    def settle(self) -> float:
        """Make the statistics gathered since the last call those that tiles are normalised by.

        Returns:
            The largest change of a mean or standard deviation, in standard deviations; infinity the first time.
        """
        moved = math.inf if len(self._known) < self.count else 0.0
        for norm, tiles in self._seen.items():
            mean, variance = pooled(tiles)
            scale = (variance + norm.eps).rsqrt()
            if norm in self._exact:
                before, width = self._exact[norm]
                moved = max(moved, float(((mean - before) * scale).abs().max()), float((scale / width - 1).abs().max()))
            self._exact[norm] = mean, scale
            self._known[norm] = mean.to(tiles[0][1]), scale.to(tiles[0][1])
        self._seen.clear()
        return moved

    def _hook(self, norm: nn.GroupNorm, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        x = inputs[0]
        down, across = self._place
        own = x[..., _own(down, x.shape[-2]), _own(across, x.shape[-1])].unflatten(1, (norm.num_groups, -1)).float()
        self._seen.setdefault(norm, []).append(part_of(own, (2, 3, 4)))
        return self._normalised(norm, x) if norm in self._known else output

    def _normalised(self, norm: nn.GroupNorm, x: Tensor) -> Tensor:
        mean, scale = (value.repeat_interleave(x.shape[1] // norm.num_groups, 1) for value in self._known[norm])
        scale = scale * norm.weight
        shift = norm.bias - mean * scale
        return torch.addcmul(shift.to(x)[..., None, None], x, scale.to(x)[..., None, None])


def _own(span: Span, size: int) -> slice:
    """The tile's own part, in features of `size` along a side of the tile."""
    scale = (span.stop - span.start) // size
    return slice((span.first - span.start) // scale, (span.last - span.start) // scale)


def _largest_tile(net: UpsamplerNet) -> int:
    """Side of the largest tile that, with its overlap, has features of no more than MAX_TILE_ELEMENTS."""
    side = int((MAX_TILE_ELEMENTS * net.params.patch_size**2 / net.params.channels[0]) ** 0.5)
    return max(net.unet.stride, side - 2 * OVERLAP)
