"""Convolutions in channels last: how weights and features lie in memory, by device.

A GPU's tensor cores convolve features that lie channels last; given plain ones, cuDNN turns them round before each
convolution and back behind it, which took 18 % of a picture's time (Karlo on an H200). So weights are turned once, when
their layer comes to the GPU, and what runs through them follows. torch's own group normalisation would turn features
back there: channels last pays together with the one of `group_norm` only.
"""

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from . import widening

PLAIN_VARIABLE = "UNCLIP_PLAIN"
"""The environment variable that leaves a GPU's faster ways out when it is "1": to compare, or to find a fault."""


class Conv2d(widening.Conv2d):
    """nn.Conv2d whose weights are turned to channels last when they come to a GPU where that pays.

    It is done on arrival, whoever moves the layer (`net.to`, ComfyUI layer by layer, a training), and stays so from
    then on: torch keeps the format wherever weights go next.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        return super()._apply(lambda tensor: _turned(fn(tensor)), recurse)


def laid_out(x: Tensor, weight: Tensor) -> Tensor:
    """x `[B, C, H, W]`, channels last on a CPU that only infers, whose weights may stay as they are; else `following`.

    Training on a CPU keeps the layout that it is given: of the plain one the backward pass is faster.
    """
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return following(x, weight)
    return x.contiguous(memory_format=torch.channels_last)


def following(x: Tensor, weight: Tensor) -> Tensor:
    """x `[B, C, H, W]`, channels last where a net's first kernel is: all layers behind it keep to that.

    But not where gradients are recorded on a CPU, whose norms take torch's way.
    """
    recorded = torch.is_grad_enabled() and x.device.type == "cpu"
    if recorded or not weight.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous(memory_format=torch.channels_last)


def channels_last_pays(device: torch.device) -> bool:
    """Whether convolutions on that device are to be channels last: on NVIDIA's from Volta on, with triton at hand.

    On AMD's, torch's convolutions turn such features back unless they are told not to.
    """
    if device.type != "cuda" or torch.version.hip is not None or not triton_serves():
        return False
    return torch.cuda.get_device_capability(device)[0] >= 7


class Triton:
    """Whether it has failed on this machine; it is not tried again then."""

    failed = False


def triton_serves() -> bool:
    """Whether kernels are to be made by triton."""
    return not Triton.failed and triton_is_there()


@cache
def triton_is_there() -> bool:
    """Whether triton is installed, and nobody has asked for the plain ways; it is not imported to find out.

    An empty module that somebody has put in its place, as for packages that only want to import it, is none.
    """
    if plain_is_asked_for():
        return False
    try:
        return find_spec("triton") is not None
    except (ValueError, ImportError):
        return False


def plain_is_asked_for() -> bool:
    """Whether the environment asks for the plain ways on GPUs."""
    return os.environ.get(PLAIN_VARIABLE) == "1"


def _turned(tensor: Tensor) -> Tensor:
    if tensor.ndim != 4 or tensor.device.type == "cpu" or not channels_last_pays(tensor.device):
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)
