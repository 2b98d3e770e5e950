"""3x3 convolutions, each by the way that is the fastest for its size on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .products import mkl_is_slow, product
from .winograd import OUT, winograd

FEWEST_CHANNELS, FEWEST_TILES = 160, 64  # below these Winograd's transforms cost what its products save
OUTPUTS_A_PIXEL = 8  # from so many output channels for each pixel on, unrolling the picture pays


class Conv3x3(nn.Conv2d):
    """nn.Conv2d(…, 3, padding=1); takes a shorter way where it pays, which is never while gradients are recorded."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Make weight [out, in, 3, 3] and bias [out]."""
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, in, H, W] -> [B, out, H, W]."""
        if pays(x, self.weight):
            return winograd(x, self.weight, self.bias)
        if is_few(x, self.weight):
            return unrolled(x, self.weight, self.bias)
        if weighs_more(x, self.weight):
            return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
        return super().forward(x)


def pays(x: Tensor, weight: Tensor) -> bool:
    """Whether winograd is the faster way to convolve x [B, C, H, W] with weight [O, C, 3, 3]."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    batch, _, height, width = x.shape
    tiles = batch * -(-height // OUT) * -(-width // OUT)
    fewest = FEWEST_CHANNELS * (2 if mkl_is_slow() else 1)
    return min(weight.shape[:2]) >= fewest and tiles >= FEWEST_TILES


def is_few(x: Tensor, weight: Tensor) -> bool:
    """Whether x [B, C, H, W] has so few pixels that unrolled is the faster way to convolve it with weight [O, C, 3, 3].

    For any other way torch brings all the weights into another order, for every picture anew: 1280 channels at 8 x 8,
    two pictures, take 25 ms in float32 and 16 in bfloat16, unrolled 22 and 12; from 2560 channels 96 and 59, unrolled
    45 and 24 (one thread of an AMD EPYC of Zen 5).
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or not weight.is_contiguous():
        return False
    return OUTPUTS_A_PIXEL * x.numel() <= x.shape[1] * len(weight)


def unrolled(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.conv2d(x, weight, bias, padding=1) for x [B, C, H, W], weight [O, C, 3, 3]: one product with what pixels see.

    Returns [B, O, H, W], channels last.
    """
    batch, _, height, width = x.shape
    seen = F.unfold(x.contiguous(), 3, padding=1).transpose(1, 2)
    made = product(seen.reshape(batch * height * width, -1), weight.flatten(1), bias)
    return made.view(batch, height, width, -1).permute(0, 3, 1, 2)


def weighs_more(x: Tensor, weight: Tensor) -> bool:
    """Whether a layout is dearer to change for weight [O, C, 3, 3] than for x [B, C, H, W] and the result.

    Torch turns plain weights round for every picture that is channels last: 129 ms in place of 67 for 1280 channels at
    8 x 8, two pictures (one CPU thread).
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
        return False
    batch, channels, height, width = x.shape
    turns_round = weight.is_contiguous() and not weight.is_contiguous(memory_format=torch.channels_last)
    return turns_round and batch * height * width * (channels + len(weight)) < weight.numel()
