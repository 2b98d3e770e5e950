"""Matmuls with weights on a CPU, by MKL or oneDNN, whichever is faster there: measured, see `cpu_timing`."""

import sys
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .cpu_timing import Probe, drawn, is_faster
from .memory_formats import Conv2d
from .widening import weights_for

MIN_MULTIPLICATIONS = 2**22  # below this, oneDNN's overhead of 10 us a call costs what it saves (AMD's Zen 5)
MEASURED_MULTIPLICATIONS = 2**20  # nor does it pay below this anywhere, and nothing is measured


class Linear(nn.Linear):
    """nn.Linear, by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """x `[..., in]` -> `[..., out]`."""
        return linear(x, *weights_for(self, x))


class Conv1x1(Conv2d):
    """nn.Conv2d(in, out, 1); without gradients, an image that is channels last goes through `linear`.

    Arguments are nn.Conv2d's, as peft makes others of the same class.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x `[B, in, H, W]` -> `[B, out, H, W]`."""
        last = x.is_contiguous(memory_format=torch.channels_last)
        if torch.is_grad_enabled() or x.device.type != "cpu" or not last:
            return super().forward(x)
        weight, bias = weights_for(self, x)
        return linear(x.permute(0, 2, 3, 1), weight.flatten(1), bias).permute(0, 3, 1, 2)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """F.linear(x, weight, bias): x `[..., K]`, weight `[N, K]`, bias `[N]` -> `[..., N]`."""
    return onednn(x, weight, bias) if _by_onednn(x, weight) else F.linear(x, weight, bias)


def onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same by oneDNN, in float32."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies x `[..., K]` by weight `[N, K]` faster than what torch takes by itself.

    Torch takes MKL for float32, which keeps its AVX-512 kernels to Intel's processors: on an AMD EPYC of Zen 5 it makes
    75 to 105 GFLOP/s a thread, oneDNN 140 to 210. In bfloat16 torch takes oneDNN by itself.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if not (x.dtype == weight.dtype == torch.float32):
        return False
    count = x.numel() * len(weight)
    if count >= MEASURED_MULTIPLICATIONS and has_both():
        measured = is_faster("products", (count,), product_probes)
        if measured is not None:
            return measured
    return count >= MIN_MULTIPLICATIONS and mkl_is_slow()


def product_probes() -> list[Probe]:
    """Products of more and more multiplications."""
    probes = []
    for rows, width in ((16, 256), (64, 256), (64, 512), (256, 512), (256, 1024)):
        given = (drawn(rows, width), drawn(width, width), drawn(width))
        probes.append(Probe((rows * width**2,), partial(F.linear, *given), partial(onednn, *given)))
    return probes


@cache
def has_both() -> bool:
    """Whether torch has both libraries."""
    have = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return bool(have and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


@cache
def mkl_is_slow() -> bool:
    """Whether this is an AMD processor with AVX-512, and torch has both libraries."""
    return has_both() and _is_amd_with_avx512()


def _is_amd_with_avx512() -> bool:
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and "AuthenticAMD" in _processor()


def _processor() -> str:
    """What the system says of its processor, its maker among it; "" where it does not say."""
    if sys.platform == "win32":
        import platform

        return platform.processor()
    said = Path("/proc/cpuinfo")
    return said.read_text(errors="replace")[:1000] if said.is_file() else ""
