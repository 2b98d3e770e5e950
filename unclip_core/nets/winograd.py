"""3x3 convolutions on a CPU with half of the multiplications: Winograd's minimal filtering, down the columns.

Lavin & Gray 2016 (arXiv 1509.09308), section 4.1: F(4, 3) makes 4 outputs of a filter of 3 taps with 6 products in
place of 12: y = AT [(G w) * (BT d)], d being the 6 inputs that they see. Here the filter is a kernel's column and a
"product" a convolution of a line of pixels with the kernel's rows (1x3): six of these, which a library runs at its full
rate, stand in for the twelve that four lines of output take. Both ways at once, F(4x4, 3x3), halves the products once
more, but leaves 36 small ones, with transforms that cost more than that saves.

The matrices interpolate at 0, ±sqrt(1/2), ±sqrt(2) and infinity, where rounding loses less than at the usual 0, ±1, ±2
(as Barabasz et al. 2020, arXiv 1803.10986, choose points by their error).
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .buffers import shared

POINTS = (0.0, 0.5**0.5, -(0.5**0.5), 2**0.5, -(2**0.5))
OUT, TAPS, IN = 4, 3, 6  # lines: of output, of the kernel, of input
MAX_SPECTRUM_ELEMENTS = 2**22  # enough for the convolutions to run at full rate, few enough for caches to hold
MAX_KERNEL_ELEMENTS = 5 * 2**19  # kernels that are transformed at once


class TransformMatrices(NamedTuple):
    """G [18, 9] for kernels read row by row, AT [4, 6], and v [6] with AT v = 1."""

    taps: Tensor
    synthesis: Tensor
    ones: Tensor


def winograd(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve like `F.conv2d(x, weight, bias, padding=1)`, on a CPU.

    With 320 channels the rounding error (root mean square, relative) is 0.6e-6 to 1.2e-6 in float32, where the direct
    sum leaves 0.3e-6 to 0.9e-6, and 7e-3 in bfloat16, where it leaves 1.7e-3. Of an image drawn in bfloat16, in which
    all layers round, the error is 6 % larger than with direct sums.

    Args:
        x: `[B, C, H, W]`.
        weight: `[O, C, 3, 3]`, of x's dtype.
        bias: `[O]`.

    Returns:
        `[B, O, H, W]`, channels last.
    """
    batch, channels, height, width = x.shape
    groups = -(-height // OUT)
    out = x.new_empty(batch, groups, OUT, width * len(weight))
    lines = x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    kernels = _Kernels(weight, bias)
    for images, down in _chunks(batch, groups, IN * width * channels):
        spectrum = _spectrum_of(lines[images], down)
        products = _convolved(spectrum.view(IN, 1, -1, width, channels), kernels)
        _synthesise(products, out[images, down])
    return out.view(batch, OUT * groups, width, -1)[:, :height].permute(0, 3, 1, 2)


def _buffer(name: str, like: Tensor, *shape: int) -> Tensor:
    return shared(name, shape, like.dtype)


class _Kernels:
    """The transformed kernels of a convolution, in parts of its outputs; those of a single part are made once."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight, self.bias = weight, bias
        self.parts = _even_slices(len(weight), max(1, MAX_KERNEL_ELEMENTS // weight[0].numel()))
        self._last: tuple[slice, Tensor] | None = None

    def spectrum(self, part: slice) -> Tensor:
        """The kernels of these outputs, [6, 3, o, C]: of each line of the spectrum, for the three pixels of a row."""
        if self._last is None or self._last[0] != part:
            weight = self.weight[part]
            outputs, channels = weight.shape[:2]
            made = _buffer("kernels", weight, IN * TAPS, outputs * channels)
            taps = weight.reshape(outputs * channels, TAPS * TAPS)
            torch.mm(transform_matrices(weight.dtype).taps, taps.T, out=made)
            self._last = part, made.view(IN, TAPS, outputs, channels)
        return self._last[1]

    def biases(self, part: slice) -> Tensor | None:
        """What each line's convolution has to add, [6, o], for their synthesis to add the bias."""
        return None if self.bias is None else transform_matrices(self.bias.dtype).ones[:, None] * self.bias[part]


def _spectrum_of(lines: Tensor, down: slice) -> Tensor:
    """The spectrum [6, b, g, W * C] of the groups `down`, of four lines each, of lines [b, H, W * C]."""
    images, height, numbers = lines.shape
    count = down.stop - down.start
    spectrum = _buffer("spectrum", lines, IN, images, count, numbers)
    seen = _buffer("seen", lines, OUT * count + 2, numbers)
    top, bottom = OUT * down.start - 1, OUT * down.stop + 1  # bottom: behind the last
    first, behind = max(0, top), min(height, bottom)
    for image, into in zip(lines, spectrum.unbind(1), strict=True):
        seen[: first - top].zero_()
        seen[first - top : behind - top] = image[first:behind]
        seen[behind - top :].zero_()
        transform_lines(seen.as_strided((IN, count, numbers), (numbers, OUT * numbers, 1)), into)
    return spectrum


def transform_lines(seen: Tensor, out: Tensor) -> None:
    """BT on lines [6, g, n] into out [6, g, n]: even and odd powers apart, which two opposite points share."""
    near, far = POINTS[1], POINTS[3]
    for index, point, other in ((1, near, far), (3, far, near)):
        torch.sub(seen[4], seen[2], alpha=other**2, out=out[index])
        odd = torch.sub(seen[3], seen[1], alpha=other**2, out=out[0])
        torch.sub(out[index], odd, alpha=point, out=out[index + 1])
        out[index].add_(odd, alpha=point)
    torch.sub(seen[4], seen[2], alpha=near**2 + far**2, out=out[0])
    out[0].add_(seen[0], alpha=(near * far) ** 2)
    torch.sub(seen[5], seen[3], alpha=near**2 + far**2, out=out[5])
    out[5].add_(seen[1], alpha=(near * far) ** 2)


def _convolved(spectrum: Tensor, kernels: _Kernels) -> Tensor:
    """Each line of the spectrum [6, 1, n, W, C] with its kernels: [6, n, W, O], where it finds room in its place."""
    rows, outputs = spectrum.shape[2:4], len(kernels.weight)
    if len(kernels.parts) == 1 and outputs <= spectrum.shape[-1]:
        products = spectrum.flatten(1)[:, : rows.numel() * outputs].view(IN, *rows, outputs)
    else:
        products = _buffer("products", spectrum, IN, *rows, outputs)
    images = spectrum.permute(0, 1, 4, 2, 3)
    for part in kernels.parts:
        kernel, biases = kernels.spectrum(part), kernels.biases(part)
        for line in range(IN):
            taps = kernel[line].permute(1, 2, 0)[:, :, None]  # [o, C, 1, 3]
            bias = None if biases is None else biases[line]
            made = F.conv2d(images[line], taps, bias, padding=(0, 1))
            products[line, :, :, part] = made[0].permute(1, 2, 0)
    return products


def _synthesise(products: Tensor, out: Tensor) -> None:
    """Make the groups out [b, g, 4, W * O] of the products [6, b * g, W, O]."""
    groups = out.shape[0] * out.shape[1]
    matrix = transform_matrices(out.dtype).synthesis.expand(groups, OUT, IN)
    torch.bmm(matrix, products.flatten(2).transpose(0, 1), out=out.view(groups, OUT, -1))


def _even_slices(length: int, most: int) -> list[slice]:
    """0..length in parts of even size, `most` or fewer each."""
    step = -(-length // -(-length // most))
    return [slice(first, min(first + step, length)) for first in range(0, length, step)]


def _chunks(batch: int, groups: int, numbers: int) -> Iterator[tuple[slice, slice]]:
    """The images, and the groups of lines in them, of each turn; a group's spectrum has so many `numbers`."""
    most = max(1, MAX_SPECTRUM_ELEMENTS // numbers)
    for images in _even_slices(batch, max(1, most // groups)):
        for down in _even_slices(groups, most):
            yield images, down


@cache
def transform_matrices(dtype: torch.dtype) -> TransformMatrices:
    """Toom and Cook: a product of polynomials from its values at POINTS and at infinity.

    Turned round (transposed), that is a filter (Blahut 2010, "Fast algorithms for signal processing", chapter 5).
    """
    points = torch.tensor(POINTS, dtype=torch.float64)
    powers = points[:, None] ** torch.arange(IN)
    synthesis, taps = torch.zeros(OUT, IN, dtype=torch.float64), torch.zeros(IN, TAPS, dtype=torch.float64)
    synthesis[:, :-1], synthesis[-1, -1] = powers[:, :OUT].T, 1
    taps[:-1], taps[-1, -1] = powers[:, :TAPS], 1
    for index, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        scale = torch.tensor([point - other for other in others], dtype=torch.float64).prod()
        taps[index] /= scale
    rows = torch.kron(taps, torch.eye(TAPS, dtype=torch.float64))
    ones = torch.linalg.pinv(synthesis).sum(dim=1)
    return TransformMatrices(*(matrix.to(dtype) for matrix in (rows, synthesis, ones)))
