"""Gradients inside ComfyUI's `inference_mode`, through weights that were created in it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .widening import widened_anew

__all__ = ["enable_gradients", "to_normal_tensors"]


@contextmanager
def enable_gradients(*modules: nn.Module) -> Iterator[None]:
    """Leave inference mode, enable gradients, and make them pass through `modules`.

    ComfyUI runs nodes under `torch.inference_mode()`. Tensors created there can never take part in a gradient, and
    weights that a loader node read are such tensors: while the context lasts they are replaced by copies. The weights
    themselves get no gradient. Inputs of the modules must pass through `to_normal_tensors` too.
    """
    with torch.inference_mode(False), torch.enable_grad(), widened_anew():
        kept = [(store, name, tensor) for module in modules for store, name, tensor in _inference_tensors(module)]
        copies: dict[int, Tensor] = {}
        try:
            for store, name, tensor in kept:
                store[name] = copies.setdefault(id(tensor), _copy(tensor))
            yield
        finally:
            for store, name, tensor in kept:
                store[name] = tensor


def to_normal_tensors(value: Any) -> Any:
    """Copy the inference-mode tensors of `value`, a tensor or mappings and sequences of them, to normal ones.

    Inside inference mode, where every new tensor is an inference tensor, nothing is done.
    """
    if torch.is_inference_mode_enabled():
        return value
    if isinstance(value, Mapping):
        return {key: to_normal_tensors(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_normal_tensors(item) for item in value)
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
