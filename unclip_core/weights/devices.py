"""Devices without ComfyUI: which there are, what they compute in best, and how much memory was taken of them."""

from typing import Any

import torch

from .choices import AUTO
from .files import DTYPES

KINDS = ("cuda", "xpu", "mps")
"""Accelerators in the order in which they are taken; AMD's call themselves cuda."""

_BAD_HALVES = ("GTX 16", "T500", "T550", "T600", "MX450", "MX550", "T1000", "T1200", "T2000")
"""Cards of compute capability 7.5 without tensor cores: fp16 gives NaN there. ComfyUI leaves them out too."""


def available() -> list[str]:
    """The kinds of device of this machine, the best first; "cpu" is always the last."""
    return [*(kind for kind in KINDS if _is_there(kind)), "cpu"]


def choose_device(name: str = AUTO) -> torch.device:
    """The device of that name, such as "cuda:1" or "cpu"; for "auto" the machine's best.

    Raises:
        ValueError: it is no name of a device, or this machine has no such device.
    """
    kinds = available()
    if name == AUTO:
        return torch.device(kinds[0])
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"{name!r} is no device. Take {AUTO} or one of: {', '.join(kinds)}.") from error
    if device.type not in kinds:
        raise ValueError(f"This machine has no device {name!r} that torch can use. It has: {', '.join(kinds)}.")
    count = 1 if device.type in ("cpu", "mps") else _module(device.type).device_count()
    if (device.index or 0) >= count:
        raise ValueError(f"There is no {name!r}: this machine has {count} of {device.type}, counted from 0.")
    return device


def own_dtype(device: torch.device) -> torch.dtype:
    """What nets on a device compute in unless somebody says otherwise, as ComfyUI decides: fp16 where it is fast."""
    if device.type == "mps":
        return torch.float16
    if device.type == "xpu":
        return torch.float16 if _module("xpu").get_device_properties(device).has_fp16 else torch.float32
    if device.type != "cuda":
        return torch.float32
    if torch.version.hip is not None:
        return torch.float16
    card = _module("cuda").get_device_properties(device)
    bad = card.major < 7 or (card.major == 7 and any(name in card.name for name in _BAD_HALVES))
    return torch.float32 if bad else torch.float16


def computing_on(name: str) -> dict[str, str]:
    """What a report says of the nets: `device`, in words, and `dtype`, the device's own, as `files.DTYPES` names it.

    Raises:
        ValueError: as of `choose_device`.
    """
    device = choose_device(name)
    own = own_dtype(device)
    return {"device": describe_device(device), "dtype": next(short for short, each in DTYPES.items() if each == own)}


def describe_device(device: torch.device) -> str:
    """The device in words, such as "cuda (NVIDIA H100)"."""
    if device.type not in ("cuda", "xpu"):
        return str(device)
    return f"{device} ({_module(device.type).get_device_name(device)})"


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was given; a CPU always has."""
    if device.type == "mps":
        _module("mps").synchronize()
    elif device.type != "cpu":
        _module(device.type).synchronize(device)


def free_cache(device: torch.device) -> None:
    """Give memory that torch holds but does not use back to the device."""
    if device.type != "cpu":
        _module(device.type).empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether `error` says that an accelerator's memory is used up; of Apple's it is a plain RuntimeError.

    Of all others it is one class, which is called `torch.OutOfMemoryError` besides from torch 2.5 on.
    """
    apple = isinstance(error, RuntimeError) and "MPS backend out of memory" in str(error)
    return apple or isinstance(error, torch.cuda.OutOfMemoryError)


def forget_peak(device: torch.device) -> None:
    """Measure `device_peak_gib` from here on."""
    if device.type in ("cuda", "xpu"):
        _module(device.type).init()  # before anything is on a device named by its number, torch knows no peak to forget
        _module(device.type).reset_peak_memory_stats(device)


def device_peak_gib(device: torch.device) -> float | None:
    """The most memory that tensors have taken of the device since `forget_peak`, GiB; None for a CPU.

    Apple's keep no peak: of them it is what the driver holds, which torch gives back last.
    """
    if device.type == "cpu":
        return None
    if device.type == "mps":
        return float(_module("mps").driver_allocated_memory()) / 2**30
    return float(_module(device.type).max_memory_allocated(device)) / 2**30


def _is_there(kind: str) -> bool:
    """Whether this machine has that kind, by questions that earlier versions of torch answer too.

    `torch.mps.is_available` is there from 2.6 on, `torch.xpu` from 2.3 on.
    """
    module = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    return module is not None and module.is_available()


def _module(kind: str) -> Any:
    return getattr(torch, kind)
