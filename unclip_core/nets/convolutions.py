"""3x3 convolutions, each by the way that is the fastest for its size on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .linear import linear
from .memory_formats import Conv2d
from .winograd import winograd

# Below any of these Winograd's transforms (of pixels, of kernels, of both) cost what its products save.
MIN_CHANNELS, MIN_PIXELS, MIN_ELEMENTS = 128, 1024, 400_000
IM2COL_OUTPUTS_PER_PIXEL = 8  # fewer output channels for each pixel than this: im2col is the slower way


class Conv3x3(Conv2d):
    """nn.Conv2d(…, 3, padding=1); takes a faster way where there is one, never while gradients are recorded."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Make weight [out, in, 3, 3] and bias [out]."""
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x `[B, in, H, W]` -> `[B, out, H, W]`."""
        if winograd_is_faster(x, self.weight):
            return winograd(x, self.weight, self.bias)
        if im2col_is_faster(x, self.weight):
            return im2col(x, self.weight, self.bias)
        if weight_reorder_is_costly(x, self.weight):
            return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
        return super().forward(x)


def winograd_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether winograd is the faster way to convolve x `[B, C, H, W]` with weight `[O, C, 3, 3]`.

    Measured in milliseconds, direct against winograd, with one thread and with two (AMD EPYC of Zen 5): 320 channels
    at 64 x 64, 27.1 : 17.6 and 14.3 : 10.1; 480 at 32 x 32, 16.2 : 12.5 and 8.3 : 7.7; 160 at 32 x 32, two images,
    3.5 : 2.7 but 1.8 : 2.1; 64 at 64 x 64, eight images, 9.0 : 8.7 but 4.4 : 5.0.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    pixels, width = x.shape[0] * x.shape[2] * x.shape[3], min(weight.shape[:2])
    return width >= MIN_CHANNELS and pixels >= MIN_PIXELS and pixels * width >= MIN_ELEMENTS


def im2col_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether x [B, C, H, W] has so few pixels that im2col is the faster way to convolve it with weight [O, C, 3, 3].

    For any other way torch brings all the weights into another order, for every image anew: 1280 channels at 8 x 8,
    two images, take 25 ms in float32 and 16 in bfloat16, im2col 22 and 12; from 2560 channels 96 and 59, im2col
    45 and 24 (one thread of an AMD EPYC of Zen 5).
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or not weight.is_contiguous():
        return False
    return IM2COL_OUTPUTS_PER_PIXEL * x.numel() <= x.shape[1] * len(weight)


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
