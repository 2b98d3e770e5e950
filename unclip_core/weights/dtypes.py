"""Which tensors are weights: dense, of floating point, finite. Everything else is refused by its name."""

from typing import Any

import torch
from torch import Tensor

FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
"""Eight-bit weights; torch can do nothing with them but cast them."""

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16, *FP8)
"""The dtypes of weights. Counts and indices are int64."""

_OF_SAFETENSORS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
}


def of_safetensors(name: str) -> torch.dtype | str:
    """Return the dtype that safetensors calls `name`, or for one that no weights have its name."""
    return _OF_SAFETENSORS.get(name, name)


def kind_of(tensor: Tensor) -> torch.dtype | str:
    """Return the dtype of a tensor that a file held, or what makes it something else than numbers in a row."""
    if tensor.is_quantized:
        return f"quantised ({tensor.dtype})"
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.device.type != "cpu":
        return f"without numbers (device {tensor.device})"
    if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
        return f"larger ({list(tensor.shape)}) than what the file holds of it"
    return tensor.dtype


def is_weight(kind: Any) -> bool:
    """Whether a dtype, as of `of_safetensors` or `kind_of`, is one that weights have."""
    return kind in FLOATS


def name_of(kind: torch.dtype | str) -> str:
    """Return how an error calls a dtype."""
    return str(kind).removeprefix("torch.")


def as_float(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Cast a tensor of floating point to `dtype`; None leaves it as it is, but for eight bits, which become float32."""
    if not tensor.is_floating_point():
        return tensor
    if dtype is None:
        return tensor.float() if tensor.dtype in FP8 else tensor
    return tensor.to(dtype)


def is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite: both show in the extremes, which need no copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor.half() if tensor.dtype in FP8 else tensor)
    return bool(torch.isfinite(low) & torch.isfinite(high))
