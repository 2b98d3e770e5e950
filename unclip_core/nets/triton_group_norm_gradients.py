"""The kernels of `group_norm` where gradients are recorded, with those of their gradients; as `triton_group_norm`.

With x' the normalised features, y = (1 + scale) · (weight · x' + bias) + shift, and g the gradient of y: the sums over
pixels of g and of g · x', chunk by chunk; of these, pooled, the gradients of weight, bias, scale and shift, and what is
to be taken of each channel; and x's own gradient, (gain · g - share - x' · slope). y and x' are computed anew of x: of
the forward pass x is kept and four numbers a channel, where torch keeps the norm's result and the shifted one, too.
"""

# ruff: noqa: ANN001, ANN202 (triton reads annotations itself)

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from . import triton_group_norm as forwards

ROWS = 6
"""Of what `_fold_gradients` writes: share, slope, and the gradients of weight, bias, scale and shift."""


class GroupNormSilu(torch.autograd.Function):
    """`normalised`, with gradients of the first order."""

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale_shift: Tensor | None,
        norm: nn.GroupNorm,
        silu: bool,
    ) -> Tensor:
        out = torch.empty_like(x)
        lines = forwards.normalised(norm, x, scale_shift, silu, out)
        ctx.save_for_backward(x, weight, bias, scale_shift, lines)
        ctx.groups, ctx.silu = norm.num_groups, silu
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight, bias, scale_shift, lines = ctx.saved_tensors
        given = (x, weight, bias, scale_shift, lines)
        dx, found = gradients(grad.contiguous(memory_format=torch.channels_last), given, ctx.groups, ctx.silu)
        dweight, dbias = (row.sum(0).to(weight.dtype) for row in (found[:, 2], found[:, 3]))
        shifts = None if scale_shift is None else found[:, 4:].flatten(1).to(scale_shift.dtype)
        return dx, dweight, dbias, shifts, None, None


def gradients(
    grad: Tensor, given: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor], groups: int, silu: bool
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of what `normalised` was given.

    Args:
        grad: of its result, `[B, C, H, W]`, channels last.
        given: x `[B, C, H, W]`, channels last; weight and bias `[C]`; scale and shift `[B, 2 C]`, or None; what
            `normalised` returned.
        groups: number of groups.
        silu: whether SiLU was taken.

    Returns:
        The gradient of x, like x; and the rows of `ROWS`, float32 `[B, 6, C]`: the last four image by image.
    """
    x, weight, bias, scale_shift, lines = given
    batch, channels, pixels = x.shape[0], x.shape[1], x.shape[2] * x.shape[3]
    chunk, chunks, tiles = forwards.parted(x)
    width, tile = channels // groups, (forwards.PIXELS, forwards.CHANNELS)
    group = max(forwards.MIN_GROUP, triton.next_power_of_2(width))
    parts = x.new_empty(batch, chunks, 2, channels, dtype=torch.float32)
    found = torch.zeros(batch, ROWS, channels, dtype=torch.float32, device=x.device)
    shifted = scale_shift is not None
    dx = torch.empty_like(x)
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        _sums[(chunks, tiles, batch)](x, grad, lines, parts, pixels, channels, chunk, chunks, silu, *tile)
        _fold_gradients[(groups, batch)](
            parts, weight, bias, scale_shift.contiguous() if scale_shift is not None else lines, lines, found,
            pixels, channels, width, chunks, shifted, max(1, forwards.FOLDED // group), group,
        )  # fmt: skip
        _apply_gradients[(triton.cdiv(pixels, forwards.PIXELS), tiles, batch)](
            x, grad, lines, found, dx, pixels, channels, silu, *tile
        )
    return dx, found


@triton.jit
def _before_silu(grad, y, SILU: tl.constexpr):
    """The gradient of y, of that of SiLU(y)."""
    if SILU:
        share = tl.sigmoid(y)
        grad = grad * share * (1.0 + y * (1.0 - share))
    return grad


@triton.jit(do_not_specialize=["pixels", "chunk", "chunks"])
def _sums(
    x, grad, lines, parts, pixels, channels, chunk, chunks,
    SILU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Sums of g and of g · x' over a chunk of pixels, channel by channel: parts [B, chunks, 2, C]."""
    part, image = tl.program_id(0), tl.program_id(2).to(tl.int64)
    columns = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = columns < channels
    line = lines + image * 4 * channels + columns
    gain = tl.load(line, mask=there, other=0.0)[None, :]
    offset = tl.load(line + channels, mask=there, other=0.0)[None, :]
    mean = tl.load(line + 2 * channels, mask=there, other=0.0)[None, :]
    rate = tl.load(line + 3 * channels, mask=there, other=0.0)[None, :]
    first = part * chunk
    behind = tl.minimum(first + chunk, pixels)
    plain = tl.zeros([CHANNELS], tl.float32)
    along = tl.zeros([CHANNELS], tl.float32)
    for start in range(first, behind, PIXELS):
        rows = start + tl.arange(0, PIXELS)
        inside = (rows < behind)[:, None] & there[None, :]
        places = (image * pixels + rows)[:, None] * channels + columns[None, :]
        values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
        g = tl.load(grad + places, mask=inside, other=0.0).to(tl.float32)
        g = _before_silu(g, values * gain + offset, SILU)
        plain += tl.sum(g, 0)
        along += tl.sum(g * (values - mean) * rate, 0)
    into = parts + (image * chunks + part) * 2 * channels + columns
    tl.store(into, plain, mask=there)
    tl.store(into + channels, along, mask=there)


@triton.jit(do_not_specialize=["pixels", "width", "chunks"])
def _fold_gradients(
    parts, weight, bias, scale_shift, lines, found, pixels, channels, width, chunks,
    SHIFTED: tl.constexpr, ROWS: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Of one group's sums what is to be done with each channel, and its own gradients: found [B, 6, C]."""
    image, inner = tl.program_id(1).to(tl.int64), tl.arange(0, GROUP)
    columns, there = tl.program_id(0) * width + inner, inner < width
    plain = tl.zeros([GROUP], tl.float32)
    along = tl.zeros([GROUP], tl.float32)
    for first in range(0, chunks, ROWS):
        rows = first + tl.arange(0, ROWS)
        inside = (rows < chunks)[:, None] & there[None, :]
        at = parts + (image * chunks + rows)[:, None] * 2 * channels + columns
        plain += tl.sum(tl.load(at, mask=inside, other=0.0), 0)
        along += tl.sum(tl.load(at + channels, mask=inside, other=0.0), 0)
    own_weight = tl.load(weight + columns, mask=there, other=0.0).to(tl.float32)
    own_bias = tl.load(bias + columns, mask=there, other=0.0).to(tl.float32)
    rate = tl.load(lines + image * 4 * channels + 3 * channels + columns, mask=there, other=0.0)
    into = found + image * 6 * channels + columns
    scale = tl.full([GROUP], 1.0, tl.float32)
    if SHIFTED:
        scale += tl.load(scale_shift + image * 2 * channels + columns, mask=there, other=0.0).to(tl.float32)
        tl.store(into + 4 * channels, own_weight * along + own_bias * plain, mask=there)
        tl.store(into + 5 * channels, plain, mask=there)
    count = pixels.to(tl.float32) * width.to(tl.float32)
    factor = own_weight * scale
    tl.store(into, rate * tl.sum(factor * plain, 0) / count, mask=there)
    tl.store(into + channels, rate * tl.sum(factor * along, 0) / count, mask=there)
    tl.store(into + 2 * channels, scale * along, mask=there)
    tl.store(into + 3 * channels, scale * plain, mask=there)


@triton.jit(do_not_specialize=["pixels"])
def _apply_gradients(
    x, grad, lines, found, dx, pixels, channels,
    SILU: tl.constexpr, PIXELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """x's gradient: gain · g - share - x' · slope."""
    image = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
    columns = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    there = columns < channels
    inside = (rows < pixels)[:, None] & there[None, :]
    places = (image * pixels + rows)[:, None] * channels + columns[None, :]
    line = lines + image * 4 * channels + columns
    gain = tl.load(line, mask=there, other=0.0)[None, :]
    offset = tl.load(line + channels, mask=there, other=0.0)[None, :]
    mean = tl.load(line + 2 * channels, mask=there, other=0.0)[None, :]
    rate = tl.load(line + 3 * channels, mask=there, other=0.0)[None, :]
    of_group = found + image * 6 * channels + columns
    share = tl.load(of_group, mask=there, other=0.0)[None, :]
    slope = tl.load(of_group + channels, mask=there, other=0.0)[None, :]
    values = tl.load(x + places, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(grad + places, mask=inside, other=0.0).to(tl.float32)
    g = _before_silu(g, values * gain + offset, SILU)
    made = gain * g - share - (values - mean) * rate * slope
    tl.store(dx + places, made.to(dx.dtype.element_ty), mask=inside)
