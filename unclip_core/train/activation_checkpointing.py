"""Activation checkpointing: less memory for a third more time."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..nets.layers import AddedKVAttention, ResBlock
from ..nets.open_clip_vit import VitBlock
from ..nets.prior import PriorBlock

CHECKPOINTED = (PriorBlock, ResBlock, AddedKVAttention, VitBlock)
"""The blocks whose activations are recomputed in the backward pass."""


def enable_activation_checkpointing(net: nn.Module) -> int:
    """Recompute the activations of a net's blocks in the backward pass; returns the number of blocks.

    Weights and their names stay as they are. open_clip's nets have a switch of their own.

    Raises:
        ValueError: the net has none of these blocks.
    """
    if hasattr(net, "set_grad_checkpointing"):
        net.set_grad_checkpointing(True)
        return 1
    blocks = [module for module in net.modules() if isinstance(module, CHECKPOINTED)]
    if not blocks:
        raise ValueError("training.checkpointing: this net has no blocks that could be computed again; leave it out.")
    for block in blocks:
        block.forward = _Checkpointed(block.forward)  # type: ignore[method-assign]  # what it is for
    return len(blocks)


class _Checkpointed:
    """Calls a block so that only its inputs are kept for the backward pass."""

    def __init__(self, forward: Callable[..., Tensor]) -> None:
        self.forward = forward

    def __call__(self, *inputs: object, **named: object) -> Tensor:
        if not torch.is_grad_enabled():
            return self.forward(*inputs, **named)
        return checkpoint(self.forward, *inputs, use_reentrant=False, **named)
