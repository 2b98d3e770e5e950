"""3x3 convolutions on a CPU with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3).

Lavin & Gray 2016 (arXiv 1509.09308), section 4: a tile of 4 x 4 outputs is AT [(G w G^T) * (BT d B)] A, with d the
6 x 6 inputs it sees: 36 products in place of 144. The three matrices interpolate at 0, ±sqrt(1/2), ±sqrt(2) and
infinity, where float32 loses half as much as at the usual 0, ±1, ±2 (as Barabasz et al. 2020, arXiv 1803.10986,
choose points by their error).
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .products import products_into

POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))
OUT, TAPS, IN = 4, 3, 6  # side of a tile's outputs, of the kernel, of a tile's inputs
NUMBERS_A_TURN = 2**23  # of tiles' spectra: enough for the products to run at full rate, few enough for caches to hold
NUMBERS_AT_ONCE = 4096  # columns that a transform makes in one go, for each thread
TILES_AT_ONCE = 192  # whose products are made and transformed back in one go
OUTPUTS_AT_ONCE = 160  # channels whose kernels are transformed and multiplied in one go; products of fewer are slower


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1) for x [B, C, H, W] and weight [O, C, 3, 3], float32, on a CPU.

    Returns [B, O, H, W], channels last. Rounding leaves an error of 1.2e-6 of the result (root mean squares, 320
    channels), where the direct sum leaves 0.2e-6 to 0.4e-6.
    """
    batch, channels, height, width = x.shape
    rows, columns = -(-height // OUT), -(-width // OUT)
    padded = _padded(x, OUT * rows + 2, OUT * columns + 2)
    out = x.new_empty(batch, rows, OUT, columns, OUT, len(weight))
    bias = x.new_zeros(len(weight)) if bias is None else bias
    pictures, lines = _turns(batch, rows, columns, channels)
    work = _Workspace(x, pictures * lines * columns, channels, len(weight))
    tiles = _tiles(padded, rows, columns)
    for first in range(0, batch, pictures):
        for top in range(0, rows, lines):
            work.analyse(tiles[:, :, first : first + pictures, top : top + lines])
            made = out[first : first + pictures, top : top + lines]
            for part in _even_slices(len(weight), OUTPUTS_AT_ONCE):
                work.multiply(weight[part], bias[part], made[..., part])
    return out.view(batch, OUT * rows, OUT * columns, -1)[:, :height, :width].permute(0, 3, 1, 2)


class _Held(threading.local):
    """The buffers that a thread keeps, by name; None where it keeps none."""

    buffers: dict[tuple[str, torch.dtype], Tensor] | None = None


_HELD = _Held()


@contextmanager
def shared_buffers() -> Iterator[None]:
    """Inside of this all convolutions of a thread work in the same memory: fresh memory costs as much as filling it."""
    outer, _HELD.buffers = _HELD.buffers, {} if _HELD.buffers is None else _HELD.buffers
    try:
        yield
    finally:
        _HELD.buffers = outer


def _buffer(name: str, like: Tensor, size: int) -> Tensor:
    """Flat memory for `size` numbers, as it was left."""
    if _HELD.buffers is None:
        return like.new_empty(size)
    held = _HELD.buffers.get((name, like.dtype))
    if held is None or len(held) < size:
        held = _HELD.buffers[name, like.dtype] = like.new_empty(size)
    return held[:size]


def _padded(x: Tensor, height: int, width: int) -> Tensor:
    """x [B, C, H, W] as [B, height, width, C], with one pixel of zeros before it and zeros behind."""
    batch, channels, high, wide = x.shape
    padded = _buffer("padded", x, batch * height * width * channels).view(batch, height, width, channels)
    for border in (padded[:, 0], padded[:, high + 1 :], padded[:, :, 0], padded[:, :, wide + 1 :]):
        border.zero_()
    padded[:, 1 : high + 1, 1 : wide + 1] = x.permute(0, 2, 3, 1)
    return padded


class _Workspace:
    """The buffers of a turn, so that every turn works in the same memory, which caches then hold.

    What is transformed (tiles, kernels, products) is so in parts: written, used and overwritten in a core's own cache.
    """

    def __init__(self, like: Tensor, tiles: int, channels: int, out_channels: int) -> None:
        self.channels, self.wide = channels, min(out_channels, OUTPUTS_AT_ONCE)
        self.at_once = max(1, NUMBERS_AT_ONCE * torch.get_num_threads() // channels)  # tiles
        self.inputs = _buffer("inputs", like, IN * IN * min(tiles, self.at_once) * channels)
        self.spectrum = _buffer("spectrum", like, IN * IN * tiles * channels)
        self.kernel = _buffer("kernel", like, IN * IN * channels * self.wide)
        self.multiplied = min(tiles, TILES_AT_ONCE)
        self.products = _buffer("products", like, IN * IN * self.multiplied * self.wide)
        self.outputs = _buffer("outputs", like, OUT * OUT * self.multiplied * self.wide)
        self.analysis, self.taps, self.synthesis = (matrix.to(like) for matrix in _matrices())

    def analyse(self, tiles: Tensor) -> None:
        """Keep the spectrum of tiles [6, 6, b, h, w, C]."""
        self.shape = tiles.shape[2:5]
        spectrum = _front(self.spectrum, IN * IN, tiles.shape[2:].numel())
        done = 0
        for pictures, down, across in _cuts(self.shape, self.at_once):
            part = tiles[:, :, pictures, down, across]
            count = part.shape[2:].numel()
            inputs = _front(self.inputs, IN * IN, count)
            inputs.view(part.shape).copy_(part)
            torch.mm(self.analysis, inputs, out=spectrum[:, done : done + count])
            done += count

    def multiply(self, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        """Convolve what was analysed with weight [O, C, 3, 3] into out [b, h, 4, w, 4, O], O being one part."""
        wide = len(weight)
        kernel = _front(self.kernel, IN * IN, wide * self.channels)
        torch.mm(self.taps, weight.reshape(wide * self.channels, TAPS * TAPS).T, out=kernel)
        kernel, done = kernel.view(IN * IN, wide, self.channels), 0
        spectrum = _front(self.spectrum, IN * IN, self.shape.numel(), self.channels)
        for pictures, down, across in _cuts(self.shape, self.multiplied):
            made = out[pictures, down, :, across]
            count = made.shape[0] * made.shape[1] * made.shape[3]
            self._synthesise(spectrum[:, done : done + count], kernel, bias, made)
            done += count

    def _synthesise(self, spectrum: Tensor, kernel: Tensor, bias: Tensor, out: Tensor) -> None:
        """Multiply the spectrum [36, n, C] of n tiles by the kernel [36, O, C] into out [b, h, 4, w, 4, O]."""
        products = _front(self.products, IN * IN, spectrum.shape[1], kernel.shape[1])
        products_into(products, spectrum, kernel)
        outputs = _front(self.outputs, OUT * OUT, products[0].numel())
        torch.mm(self.synthesis, products.view(IN * IN, -1), out=outputs)
        tiles = (out.shape[0], out.shape[1], out.shape[3], out.shape[5])
        torch.add(outputs.view(OUT, OUT, *tiles).permute(2, 3, 0, 4, 1, 5), bias, out=out)


def _front(buffer: Tensor, *shape: int) -> Tensor:
    """The beginning of a flat buffer, in that shape."""
    return buffer[: torch.Size(shape).numel()].view(shape)


def _slices(length: int, step: int) -> list[slice]:
    """0..length in parts of `step`, 1 at least, and a rest."""
    step = max(1, step)
    return [slice(first, min(first + step, length)) for first in range(0, length, step)]


def _cuts(shape: Sequence[int], most: int) -> Iterator[tuple[slice, slice, slice]]:
    """Tiles [pictures, rows, columns] in their order, cut in parts of no more than `most`."""
    pictures, rows, columns = shape
    for one in _slices(pictures, most // (rows * columns)):
        for down in _slices(rows, most // columns):
            for across in _slices(columns, most):
                yield one, down, across


def _even_slices(length: int, most: int) -> list[slice]:
    """0..length in parts of even size, `most` or fewer each."""
    return _slices(length, -(-length // -(-length // most)))


def _turns(batch: int, rows: int, columns: int, channels: int) -> tuple[int, int]:
    """How many pictures, and how many rows of tiles in them, a turn takes."""
    most = max(1, NUMBERS_A_TURN // (IN * IN * channels))
    if rows * columns <= most:
        return _even_slices(batch, most // (rows * columns))[0].stop, rows
    return 1, _even_slices(rows, max(1, most // columns))[0].stop


def _tiles(padded: Tensor, rows: int, columns: int) -> Tensor:
    """View [6, 6, B, rows, columns, C] of overlapping tiles of padded [B, 4 * rows + 2, 4 * columns + 2, C]."""
    b, y, x, c = padded.stride()
    shape = (IN, IN, len(padded), rows, columns, padded.shape[-1])
    return padded.as_strided(shape, (y, x, b, OUT * y, OUT * x, c))


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """BT [36, 36], G [36, 9] and AT [16, 36] for tiles and kernels read row by row, float64.

    Toom and Cook: a product of polynomials from its values at POINTS and at infinity; turned round (transposed),
    that is a filter (Blahut 2010, "Fast algorithms for signal processing", chapter 5).
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    powers = points[:, None] ** torch.arange(IN)
    synthesis, taps = torch.zeros(OUT, IN, dtype=torch.float64), torch.zeros(IN, TAPS, dtype=torch.float64)
    synthesis[:, :-1], synthesis[-1, -1] = powers[:, :OUT].T, 1
    taps[:-1], taps[-1, -1] = powers[:, :TAPS], 1
    analysis = torch.zeros(IN, IN, dtype=torch.float64)
    for index, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        scale = torch.tensor([point - other for other in others], dtype=torch.float64).prod()
        analysis[index, :-1] = _polynomial(others)
        taps[index] /= scale
    analysis[-1] = _polynomial(POINTS)
    return tuple(torch.kron(matrix, matrix) for matrix in (analysis, taps, synthesis))


def _polynomial(roots: tuple[float, ...] | list[float]) -> Tensor:
    """Coefficients of the product of (x - root), lowest power first, float64 [number of roots + 1]."""
    result = torch.ones(1, dtype=torch.float64)
    for root in roots:
        result = F.pad(result, (1, 0)) - root * F.pad(result, (0, 1))
    return result
