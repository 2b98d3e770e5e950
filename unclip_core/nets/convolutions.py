"""3x3 convolutions, each by the way that is the fastest for its size on a CPU.

What is the fastest depends on the processor: `cpu_timing` has it measured on the machine at hand. The constants here
are those of an AMD EPYC of Zen 5, for where nothing is measured.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..weights import computing
from .buffers import shared_buffers
from .cpu_timing import Probe, drawn, is_faster
from .linear import linear
from .memory_formats import Conv2d
from .widening import weights_for
from .winograd import winograd

# Below any of these Winograd's transforms (of pixels, of kernels, of both) cost what its products save.
MIN_CHANNELS, MIN_PIXELS, MIN_ELEMENTS = 128, 1024, 400_000
IM2COL_OUTPUTS_PER_PIXEL = 8  # fewer output channels for each pixel than this: im2col is the slower way
MEASURED_CHANNELS, MEASURED_PIXELS = 64, 1024  # Winograd wins nowhere below these, and nothing is measured
MEASURED_WEIGHTS = 2**18  # of smaller kernels a layout changes in no time


class Conv3x3(Conv2d):
    """nn.Conv2d(…, 3, padding=1); takes a faster way where there is one, never while gradients are recorded."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Make weight [out, in, 3, 3] and bias [out]."""
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x `[B, in, H, W]` -> `[B, out, H, W]`."""
        return convolve(x, *weights_for(self, x))


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1), x `[B, C, H, W]` and weight `[O, C, 3, 3]`, by the fastest way for x."""
    if winograd_is_faster(x, weight):
        return winograd(x, weight, bias)
    if im2col_is_faster(x, weight):
        return im2col(x, weight, bias)
    if weight_reorder_is_costly(x, weight):
        return turned(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1)


def winograd_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether winograd is the faster way to convolve x `[B, C, H, W]` with weight `[O, C, 3, 3]`.

    Measured in milliseconds, direct against winograd, with one thread and with two (AMD EPYC of Zen 5): 320 channels
    at 64 x 64, 27.1 : 17.6 and 14.3 : 10.1; 480 at 32 x 32, 16.2 : 12.5 and 8.3 : 7.7; 160 at 32 x 32, two images,
    3.5 : 2.7 but 1.8 : 2.1; 64 at 64 x 64, eight images, 9.0 : 8.7 but 4.4 : 5.0.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    pixels, width = x.shape[0] * x.shape[2] * x.shape[3], min(weight.shape[:2])
    if is_measured(x.dtype) and width >= MEASURED_CHANNELS and pixels >= MEASURED_PIXELS:
        measured = is_faster(f"winograd-{_name(x)}", (width, pixels), winograd_probes(x.dtype))
        if measured is not None:
            return measured
    return width >= MIN_CHANNELS and pixels >= MIN_PIXELS and pixels * width >= MIN_ELEMENTS


def im2col_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether x [B, C, H, W] has so few pixels that im2col is the faster way to convolve it with weight [O, C, 3, 3].

    For any other way torch brings all the weights into another order, for every image anew: 1280 channels at 8 x 8,
    two images, take 25 ms in float32 and 16 in bfloat16, im2col 22 and 12; from 2560 channels 96 and 59, im2col
    45 and 24 (one thread of an AMD EPYC of Zen 5).
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or not weight.is_contiguous():
        return False
    ratio = len(weight) / max(1, x.shape[0] * x.shape[2] * x.shape[3])  # outputs for each pixel
    if is_measured(x.dtype) and weight.numel() >= MEASURED_WEIGHTS and ratio >= 1:
        measured = is_faster(f"im2col-{_name(x)}", (ratio,), im2col_probes(x.dtype))
        if measured is not None:
            return measured
    return ratio >= IM2COL_OUTPUTS_PER_PIXEL


def im2col(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1) for x [B, C, H, W], weight [O, C, 3, 3]: one matmul with the unfolded image.

    Returns:
        `[B, O, H, W]`, channels last.
    """
    batch, _, height, width = x.shape
    seen = F.unfold(x.contiguous(), 3, padding=1).transpose(1, 2)
    made = linear(seen.reshape(batch * height * width, -1), weight.flatten(1), bias)
    return made.view(batch, height, width, -1).permute(0, 3, 1, 2)


def weight_reorder_is_costly(x: Tensor, weight: Tensor) -> bool:
    """Whether a layout is dearer to change for weight `[O, C, 3, 3]` than for x `[B, C, H, W]` and the result.

    Torch turns plain weights round for every image that is channels last: 129 ms in place of 67 for 1280 channels at
    8 x 8, two images (one CPU thread).
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    batch, channels, height, width = x.shape
    turns_round = weight.is_contiguous() and not weight.is_contiguous(memory_format=torch.channels_last)
    return turns_round and batch * height * width * (channels + len(weight)) < weight.numel()


def turned(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1) in the plain layout, for x that is channels last, as the result is."""
    return F.conv2d(x.contiguous(), weight, bias, padding=1).contiguous(memory_format=torch.channels_last)


def direct(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1) as torch does it, in the layout in which it is faster."""
    if weight_reorder_is_costly(x, weight):
        return turned(x, weight, bias)
    return F.conv2d(x, weight, bias, padding=1)


def is_measured(dtype: torch.dtype) -> bool:
    """Whether ways are measured in that precision: bfloat16 where processors have it, for emulated it takes seconds."""
    return dtype == torch.float32 or (dtype == torch.bfloat16 and computing.cpu_computes_in(dtype))


def _name(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _probe(size: tuple[float, ...], other: Callable[..., Tensor], dtype: torch.dtype, *sides: int) -> Probe:
    """A square image of so many channels, outputs and pixels a side, by `other` and by torch's own way."""
    channels, outputs, side = sides
    x = drawn(1, channels, side, side).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = (drawn(outputs, channels, 3, 3) / (3 * channels**0.5)).to(dtype)
    given = (x, weight, torch.zeros(outputs, dtype=dtype))
    return Probe(size, partial(direct, *given), partial(other, *given))


@shared_buffers()
def _winograd(*given: Tensor) -> Tensor:
    return winograd(*given)


def _make_winograd_probes(dtype: torch.dtype) -> list[Probe]:
    widths_and_sides = ((64, 40), (128, 32), (128, 64), (224, 32), (224, 48))
    return [_probe((width, side**2), _winograd, dtype, width, width, side) for width, side in widths_and_sides]


def _make_im2col_probes(dtype: torch.dtype) -> list[Probe]:
    linear(torch.zeros(64, 512), torch.zeros(512, 512))  # so that products, which these take, are measured before
    return [_probe((512 / side**2,), im2col, dtype, 512, 512, side) for side in (4, 6, 8)]


# One function a precision, made once: measurements are remembered by it.
_PROBES = {
    (make, dtype): partial(make, dtype)
    for make in (_make_winograd_probes, _make_im2col_probes)
    for dtype in (torch.float32, torch.bfloat16)
}


def winograd_probes(dtype: torch.dtype) -> Callable[[], list[Probe]]:
    """What makes the probes of Winograd, of sizes (narrower of both widths, pixels)."""
    return _PROBES[_make_winograd_probes, dtype]


def im2col_probes(dtype: torch.dtype) -> Callable[[], list[Probe]]:
    """What makes the probes of im2col, of sizes (outputs for each pixel)."""
    return _PROBES[_make_im2col_probes, dtype]
