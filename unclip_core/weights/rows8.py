"""Matrices in eight bits: whole numbers of -127..127 and a scale a row, a quarter of float32's size.

In a file of `save_weights` the matrix stands under its own name as int8, the scales beside it as "<name>:scale",
`[rows]` float32. Read back, an element is off by at most half a scale, 1/254 of its row's largest.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

SCALE = ":scale"
LEVELS = 127
LEAST = 16
"""Rows, and elements of a row, from which on a matrix is coded: statistics and biases are not worth it."""


def code_rows(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with their matrices (and convolutions, as one row an output channel) coded."""
    coded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        coded |= _coded(name, tensor) if _is_matrix(tensor) else {name: tensor}
    return coded


def decode_rows(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with all that is coded as float32; an int8 tensor without fitting scales stays what it is."""
    plain = dict(tensors)
    for name, tensor in tensors.items():
        scale = tensors.get(name + SCALE)
        if tensor.dtype == torch.int8 and scale is not None and scale.shape == tensor.shape[:1]:
            plain[name] = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
            del plain[name + SCALE]
    return plain


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.ndim > 1 and min(len(tensor), tensor[0].numel()) >= LEAST


def _coded(name: str, tensor: Tensor) -> dict[str, Tensor]:
    rows = tensor.detach().float().flatten(1)
    scale = rows.abs().amax(dim=1) / LEVELS
    levels = (rows / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round()
    return {name: levels.to(torch.int8).reshape(tensor.shape), name + SCALE: scale}
