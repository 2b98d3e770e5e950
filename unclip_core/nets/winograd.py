"""3x3 convolutions on a CPU with a quarter of the multiplications: Winograd's minimal filtering F(4x4, 3x3).

Lavin & Gray 2016 (arXiv 1509.09308), section 4: a tile of 4 x 4 outputs is AT [(G w G^T) * (BT d B)] A, with d the
6 x 6 inputs it sees: 36 products in place of 144. The three matrices interpolate at 0, ±sqrt(1/2), ±sqrt(2) and
infinity, where float32 loses half as much as at the usual 0, ±1, ±2 (as Barabasz et al. 2020, arXiv 1803.10986,
choose points by their error).
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))
OUT, TAPS, IN = 4, 3, 6  # side of a tile's outputs, of the kernel, of a tile's inputs
TILES_A_TURN = 256  # enough for the products to run at full rate, few enough for caches to hold
FEWEST_CHANNELS, FEWEST_TILES = 160, 128  # below these the transforms cost what the products save


class Conv3x3(nn.Conv2d):
    """nn.Conv2d(…, 3, padding=1); takes the short way where it pays, which is never while gradients are recorded."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Make weight [out, in, 3, 3] and bias [out]."""
        super().__init__(in_channels, out_channels, TAPS, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in, H, W] -> [B, out, H, W]."""
        return winograd(x, self.weight, self.bias) if pays(x, self.weight) else super().forward(x)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether winograd is the faster way to convolve x [B, C, H, W] with weight [O, C, 3, 3]."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    batch, _, height, width = x.shape
    tiles = batch * -(-height // OUT) * -(-width // OUT)
    return min(weight.shape[:2]) >= FEWEST_CHANNELS and tiles >= FEWEST_TILES


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1) for x [B, C, H, W] and weight [O, C, 3, 3], float32, on a CPU.

    Returns [B, O, H, W], channels last. Rounding leaves an error of 1.2e-6 of the result (root mean squares, 320
    channels), where the direct sum leaves 0.2e-6 to 0.4e-6.
    """
    batch, channels, height, width = x.shape
    rows, columns = -(-height // OUT), -(-width // OUT)
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1 + OUT * columns - width, 1, 1 + OUT * rows - height))
    out = x.new_empty(batch, rows, OUT, columns, OUT, len(weight))
    kernel = _transformed(weight)
    pictures, lines = _turns(batch, rows, columns)
    work = _Workspace(x, pictures * lines * columns, channels, len(weight))
    tiles = _tiles(padded, rows, columns)
    for first in range(0, batch, pictures):
        for top in range(0, rows, lines):
            part = tiles[:, :, first : first + pictures, top : top + lines]
            made = work.run(part, kernel, bias)
            out[first : first + pictures, top : top + lines].copy_(made)
    return out.view(batch, OUT * rows, OUT * columns, -1)[:, :height, :width].permute(0, 3, 1, 2)


class _Workspace:
    """The buffers of a turn, so that every turn works in the same memory, which caches then hold."""

    def __init__(self, like: Tensor, tiles: int, channels: int, out_channels: int) -> None:
        self.inputs, self.spectrum = like.new_empty(2, IN * IN * tiles * channels)
        self.products = like.new_empty(IN * IN * tiles * out_channels)
        self.outputs = like.new_empty(OUT * OUT * tiles * out_channels)
        self.channels, self.out_channels = channels, out_channels
        self.analysis, self.synthesis = _matrices()[0].to(like), _matrices()[2].to(like)

    def run(self, tiles: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve tiles [6, 6, b, h, w, C] -> [b, h, 4, w, 4, O] (a view of the buffer)."""
        shape = tiles.shape[2:5]
        count = shape.numel()
        inputs = _front(self.inputs, IN * IN, count * self.channels)
        inputs.view(tiles.shape).copy_(tiles)
        spectrum = torch.mm(self.analysis, inputs, out=_front(self.spectrum, *inputs.shape))
        products = _front(self.products, IN * IN, count, self.out_channels)
        torch.bmm(spectrum.view(IN * IN, count, self.channels), kernel, out=products)
        outputs = _front(self.outputs, OUT * OUT, count * self.out_channels)
        torch.mm(self.synthesis, products.view(IN * IN, -1), out=outputs)
        if bias is not None:
            outputs.view(-1, self.out_channels).add_(bias)
        return outputs.view(OUT, OUT, *shape, self.out_channels).permute(2, 3, 0, 4, 1, 5)


def _front(buffer: Tensor, *shape: int) -> Tensor:
    """The beginning of a flat buffer, in that shape."""
    return buffer[: torch.Size(shape).numel()].view(shape)


def _turns(batch: int, rows: int, columns: int) -> tuple[int, int]:
    """How many pictures, and how many rows of tiles in them, a turn takes."""
    if rows * columns <= TILES_A_TURN:
        return min(batch, TILES_A_TURN // (rows * columns)), rows
    return 1, max(1, TILES_A_TURN // columns)


def _tiles(padded: Tensor, rows: int, columns: int) -> Tensor:
    """View [6, 6, B, rows, columns, C] of overlapping tiles of padded [B, 4 * rows + 2, 4 * columns + 2, C]."""
    b, y, x, c = padded.stride()
    shape = (IN, IN, len(padded), rows, columns, padded.shape[-1])
    return padded.as_strided(shape, (y, x, b, OUT * y, OUT * x, c))


def _transformed(weight: Tensor) -> Tensor:
    """G w G^T of each kernel: [O, C, 3, 3] -> [36, C, O] (a view)."""
    taps = weight.reshape(-1, TAPS * TAPS).T  # no copy of weights in the plain layout
    spectrum = _matrices()[1].to(weight) @ taps
    return spectrum.view(IN * IN, *weight.shape[:2]).transpose(1, 2)


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
