"""Layers whose weights may be held in fewer bits than they are computed in.

A CPU that only emulates bfloat16 or float16 computes a hundred times slower in them than in float32. There features are
float32 (`weights.computing.dtype_for`), and each layer widens its own weights as it runs: at no time are more than one
layer's held twice.
"""

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..weights.computing import dtype_for
from .buffers import shared

HALVES = (torch.bfloat16, torch.float16)


def widened(stored: Tensor, x: Tensor) -> Tensor:
    """Weights on a CPU in the precision of the features x, where that is float32 and they are held in half of it.

    Inside `shared_buffers` a matrix stands where the last layer's stood: it is to be used at once. Taking fresh memory
    for it would cost up to seven times what filling it does.
    """
    if stored.dtype == x.dtype or stored.dtype not in HALVES or x.dtype != torch.float32 or x.device.type != "cpu":
        return stored
    if torch.is_grad_enabled():
        made: Any = stored.float()
        made.widened_from = stored
        return made
    if stored.ndim < 2 or not stored.is_contiguous():
        return stored.float()
    return shared("weights", stored.shape, torch.float32).copy_(stored)


def widened_anew() -> AbstractContextManager[None]:
    """While it lasts, gradients are recorded with weights as they are held; going back widens them anew."""
    return torch.autograd.graph.saved_tensors_hooks(_kept, _made_anew)


def _kept(saved: Tensor) -> Any:
    """What is kept of a tensor for the way back: of widened weights, or of a view of them, what they were made of."""
    held = getattr(saved if saved._base is None else saved._base, "widened_from", None)
    return saved if held is None else (held, saved.shape, saved.stride(), saved.storage_offset())


def _made_anew(kept: Any) -> Tensor:
    if isinstance(kept, Tensor):
        return kept
    held, *place = kept
    return held.float().as_strided(*place)


def weights_for(layer: nn.Module, x: Tensor) -> tuple[Any, Any]:
    """Weight and bias of a layer, each None where it has none, `widened` to x."""
    weight, bias = layer.weight, layer.bias
    return None if weight is None else widened(weight, x), None if bias is None else widened(bias, x)


class Conv2d(nn.Conv2d):
    """nn.Conv2d."""

    def forward(self, x: Tensor) -> Tensor:
        """x `[B, C, H, W]` -> `[B, C', H', W']`."""
        return self._conv_forward(x, *weights_for(self, x))


class GroupNorm(nn.GroupNorm):
    """nn.GroupNorm."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x `[B, C, ...]`."""
        return F.group_norm(x, self.num_groups, *weights_for(self, x), self.eps)


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x `[..., C]`."""
        return F.layer_norm(x, self.normalized_shape, *weights_for(self, x), self.eps)


class Embedding(nn.Embedding):
    """nn.Embedding."""

    def forward(self, numbers: Tensor) -> Tensor:
        """Numbers `[...]` int64 -> their vectors `[..., D]`, in what the next layers compute in."""
        return super().forward(numbers).to(dtype_for(self.weight))
