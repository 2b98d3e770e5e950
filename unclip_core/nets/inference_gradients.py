"""Gradients where none are kept: inside ComfyUI's `inference_mode`, with weights that were made in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["gradients", "plain"]


@contextmanager
def gradients(*modules: nn.Module) -> Iterator[None]:
    """Leave inference mode, with gradients on, and with `modules` fit to let them pass.

    ComfyUI runs nodes under `torch.inference_mode()`. Tensors made there can never take part in a gradient, and
    weights that a loader node read are such tensors: those are copied for as long as the context lasts, and put back.
    The weights themselves get no gradient. What goes into the modules must be made `plain` too.
    """
    with torch.inference_mode(False), torch.enable_grad():
        kept = [(store, name, tensor) for module in modules for store, name, tensor in _inference_tensors(module)]
        copies: dict[int, Tensor] = {}
        try:
            for store, name, tensor in kept:
                store[name] = copies.setdefault(id(tensor), _copy(tensor))
            yield
        finally:
            for store, name, tensor in kept:
                store[name] = tensor


def plain(value: Any) -> Any:
    """`value`, a tensor or mappings and sequences of them, with inference mode's tensors copied to plain ones.

    Inside inference mode, where every tensor is one of its own, nothing is done.
    """
    if torch.is_inference_mode_enabled():
        return value
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _inference_tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    """Where `module` keeps parameters and buffers that were made in inference mode."""
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, tensor in store.items():
                if tensor is not None and tensor.is_inference():
                    yield store, name, tensor


def _copy(tensor: Tensor) -> Tensor:
    copy = tensor.detach().clone()
    return nn.Parameter(copy, requires_grad=False) if isinstance(tensor, nn.Parameter) else copy
