"""A net on large batches in chunks: activation memory does not grow with the batch."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .unet_params import UNetParams

ConditionedNet = Callable[[Tensor, Tensor, Any], Tensor]

MAX_ELEMENTS = 2**23  # in the widest features of a chunk; 32 MB in float32
MAX_ELEMENTS_THIN, THIN_CHANNELS = 2**21, 128
"""For nets whose widest features have so many channels or fewer.

These are bound by memory bandwidth, so their activations should fit a cache: 32 rows of the bundled decoder took
10.3 ms each, 128 rows 12.4 (one CPU thread). Wider nets are bound by reading their weights, which larger chunks share.
"""


def chunked(net: ConditionedNet, params: UNetParams) -> ConditionedNet:
    """Run a net on parts of the batch on a CPU, which gains nothing by larger batches; other devices get it whole.

    Args:
        net: (x `[B, C, H, W]`, t `[B]`, condition), the condition a tensor, None or a mapping of them, batch first.
        params: of its UNet.

    Returns:
        A net whose results are those of the whole batch, to the net's own rounding.
    """

    def run(x: Tensor, t: Tensor, condition: Any) -> Tensor:
        count = rows_per_chunk(x, params)
        if len(x) <= count:
            return net(x, t, condition)
        chunks = [slice(first, first + count) for first in range(0, len(x), count)]
        return torch.cat([net(x[rows], t[rows], _rows_of(condition, rows)) for rows in chunks])

    return run


def rows_per_chunk(x: Tensor, params: UNetParams) -> int:
    """How many images like those of x `[B, C, H, W]` a chunk takes, 1 or more; chunks are of even size."""
    if x.device.type != "cpu":
        return len(x)
    numbers = MAX_ELEMENTS_THIN if params.channels[0] <= THIN_CHANNELS else MAX_ELEMENTS
    most = max(1, numbers // elements_per_image(x.shape[-2] * x.shape[-1], params))
    return -(-len(x) // -(-len(x) // most))


def elements_per_image(pixels: int, params: UNetParams) -> int:
    """Size of the widest features that a UNet makes of an image of that many pixels."""
    return max(1, params.channels[0] * pixels // params.patch_size**2)


def _rows_of(condition: Any, rows: slice) -> Any:
    if isinstance(condition, Mapping):
        return {key: _rows_of(value, rows) for key, value in condition.items()}
    return condition if condition is None else condition[rows]
