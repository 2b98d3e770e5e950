"""The kernels of `group_norm`, for features that are channels last; to be imported where triton is.

Three passes: the moments of each channel over chunks of pixels; of these, pooled by groups, of the norm's own weights
and of scale and shift, one line y = gain · x + offset a channel; and that line, with SiLU. All sums are float32. Means
and sums of squared deviations are merged (Chan, Golub and LeVeque 1979): nothing cancels, whatever the mean.

Numbers that change from layer to layer are not specialised on, so that few variants are compiled.
"""

# ruff: noqa: ANN001, ANN202 (triton reads annotations itself)

from contextlib import nullcontext

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

PIXELS, CHANNELS = 32, 64  # of a tile
MAX_CHUNKS = 64
FOLDED = 4096  # numbers that are folded at once
MIN_GROUP = 128


def normalised(norm: nn.GroupNorm, x: Tensor, scale_shift: Tensor | None, silu: bool, out: Tensor) -> Tensor:
    """Write SiLU((1 + scale) · norm(x) + shift) to `out`; gradients are not recorded here.

    Args:
        norm: with weight and bias.
        x: `[B, C, H, W]`, channels last.
        scale_shift: `[B, 2 C]`, the scale first, or None.
        silu: whether SiLU is taken.
        out: like x.

    Returns:
        What was done, float32 `[B, 4, C]`: each channel's gain and offset, before SiLU, and its group's mean and
        1 / standard deviation.
    """
    batch, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    chunk, chunks, tiles = parted(x)
    parts = x.new_empty(batch, chunks, 2, channels, dtype=torch.float32)
    lines = x.new_empty(batch, 4, channels, dtype=torch.float32)
    given = lines if scale_shift is None else scale_shift.contiguous()
    width = channels // norm.num_groups
    group = max(MIN_GROUP, triton.next_power_of_2(width))
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        _moments[(chunks, tiles, batch)](x, parts, pixels, channels, chunk, chunks, PIXELS, CHANNELS)
        _fold[(norm.num_groups, batch)](
            parts, norm.weight, norm.bias, given, lines, pixels, channels, width, chunk, chunks, norm.eps,
            scale_shift is not None, max(1, FOLDED // group), group,
        )  # fmt: skip
        _apply[(triton.cdiv(pixels, PIXELS), tiles, batch)](x, lines, out, pixels, channels, silu, PIXELS, CHANNELS)
    return lines


def parted(x: Tensor) -> tuple[int, int, int]:
    """How features `[B, C, H, W]` are parted: pixels in a chunk, chunks, and tiles of channels."""
    pixels = x.shape[2] * x.shape[3]
    chunk = triton.cdiv(triton.cdiv(pixels, MAX_CHUNKS), PIXELS) * PIXELS
    return chunk, triton.cdiv(pixels, chunk), triton.cdiv(x.shape[1], CHANNELS)


@triton.jit(do_not_specialize=["pixels", "chunk", "chunks"])
def _moments(
    x, parts, pixels, channels, chunk, chunks,
    PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Mean, and sum of squared deviations, of each channel over a chunk of pixels: parts [B, chunks, 2, C]."""
    part, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    columns = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = columns < channels
    first = part * chunk
    behind = tl.minimum(first + chunk, pixels)
    mean = tl.zeros([CHANNELS], tl.float32)
    squares = tl.zeros([CHANNELS], tl.float32)
    for start in range(first, behind, PIXELS):
        rows = start + tl.arange(0, PIXELS)
        inside = (rows < behind)[:, None] & there[None, :]
        places = (image * pixels + rows)[:, None] * channels + columns[None, :]
        values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
        before, here = (start - first).to(tl.float32), tl.minimum(behind - start, PIXELS).to(tl.float32)
        own = tl.sum(values, 0) / here
        off = tl.where(inside, values - own[None, :], 0.0)
        step, share = own - mean, here / (before + here)
        mean += step * share
        squares += tl.sum(off * off, 0) + step * step * before * share
    into = parts + (image * chunks + part) * 2 * channels + columns
    tl.store(into, mean, mask=there)
    tl.store(into + channels, squares, mask=there)


@triton.jit(do_not_specialize=["pixels", "width", "chunk", "chunks", "eps"])
def _fold(
    parts, weight, bias, scale_shift, lines, pixels, channels, width,
    chunk, chunks, eps, SHIFTED: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """The moments of one group's channels, pooled, and what is to be done with each: lines [B, 4, C]."""
    image, inner = tl.program_id(1).to(tl.int64), tl.arange(0, GROUP)
    columns, there = tl.program_id(0) * width + inner, inner < width
    count = pixels.to(tl.float32) * width.to(tl.float32)
    sums = tl.zeros([GROUP], tl.float32)
    for first in range(0, chunks, ROWS):
        rows = first + tl.arange(0, ROWS)
        inside = (rows < chunks)[:, None] & there[None, :]
        numbers = tl.minimum(pixels - rows * chunk, chunk).to(tl.float32)[:, None]
        means = tl.load(parts + (image * chunks + rows)[:, None] * 2 * channels + columns, mask=inside, other=0.0)
        sums += tl.sum(means * numbers, 0)
    mean = tl.sum(sums, 0) / count
    squares = tl.zeros([GROUP], tl.float32)
    for first in range(0, chunks, ROWS):
        rows = first + tl.arange(0, ROWS)
        inside = (rows < chunks)[:, None] & there[None, :]
        numbers = tl.minimum(pixels - rows * chunk, chunk).to(tl.float32)[:, None]
        at = parts + (image * chunks + rows)[:, None] * 2 * channels + columns
        off = tl.load(at, mask=inside, other=0.0) - mean
        own = tl.load(at + channels, mask=inside, other=0.0)
        squares += tl.sum(tl.where(inside, own + numbers * off * off, 0.0), 0)
    variance = tl.sum(squares, 0) / count
    rate = 1.0 / tl.sqrt(variance + eps)
    gain = tl.load(weight + columns, mask=there, other=0.0).to(tl.float32) * rate
    offset = tl.load(bias + columns, mask=there, other=0.0).to(tl.float32) - mean * gain
    if SHIFTED:
        at = scale_shift + image * 2 * channels + columns
        scale = 1.0 + tl.load(at, mask=there, other=0.0).to(tl.float32)
        gain *= scale
        offset = offset * scale + tl.load(at + channels, mask=there, other=0.0).to(tl.float32)
    into = lines + image * 4 * channels + columns
    tl.store(into, gain, mask=there)
    tl.store(into + channels, offset, mask=there)
    tl.store(into + 2 * channels, tl.zeros([GROUP], tl.float32) + mean, mask=there)
    tl.store(into + 3 * channels, tl.zeros([GROUP], tl.float32) + rate, mask=there)


@triton.jit(do_not_specialize=["pixels"])
def _apply(
    x, lines, out, pixels, channels,
    SILU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Each channel's line, and SiLU behind it."""
    image = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    columns = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = columns < channels
    inside = (rows < pixels)[:, None] & there[None, :]
    places = (image * pixels + rows)[:, None] * channels + columns[None, :]
    line = lines + image * 4 * channels + columns
    gain = tl.load(line, mask=there, other=0.0)[None, :]
    offset = tl.load(line + channels, mask=there, other=0.0)[None, :]
    y = tl.load(x + places, mask=inside, other=0.0).to(tl.float32) * gain + offset
    if SILU:
        y = y * tl.sigmoid(y)
    tl.store(out + places, y.to(out.dtype.element_ty), mask=inside)
