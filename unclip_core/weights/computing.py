"""What nets compute in, which on a CPU may be more precise than what their weights are held in."""

import logging
from functools import cache

import torch
from torch import Tensor

from .files import DTYPES

log = logging.getLogger("unclip")

_QUERIES = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


@cache
def cpu_computes_in(dtype: torch.dtype) -> bool:
    """Whether this processor has instructions for such numbers, by oneDNN's word, or torch has to emulate them.

    Emulated, a convolution of 256 channels ran at 0.3 GFLOP/s in bfloat16, and at 85 in float32 (AMD EPYC with AVX2).
    """
    if dtype not in _QUERIES:
        return True
    supported = getattr(torch.ops.mkldnn, _QUERIES[dtype], None)
    return supported is not None and bool(supported())


def computing_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What a net computes in whose weights are held in `dtype`: that, but float32 where a CPU would emulate it."""
    return torch.float32 if device.type == "cpu" and not cpu_computes_in(dtype) else dtype


def dtype_for(stored: Tensor) -> torch.dtype:
    """What features have to be in for layers whose weights are held as `stored` is."""
    return computing_dtype(stored.dtype, stored.device)


def describe_dtype(dtype: torch.dtype, device: torch.device) -> str:
    """A dtype as `DTYPES` names it, and in what nets compute on that device if it is another."""
    names = {each: name for name, each in DTYPES.items()}
    name, computing = names[dtype], computing_dtype(dtype, device)
    if computing == dtype:
        return name
    return f"{name}, computed in {names[computing]}: this processor has no {name} instructions"


def tell_computing(dtype: torch.dtype, device: torch.device) -> None:
    """Log it where nets whose weights are held in `dtype` compute in another."""
    if computing_dtype(dtype, device) != dtype:
        log.warning("Weights in %s.", describe_dtype(dtype, device))
