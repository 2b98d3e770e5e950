"""Time and memory of a model's stages, one part after the other in memory."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..output import say
from ..weights.computing import describe_dtype
from ..weights.devices import describe_device, device_peak_gib, forget_peak, synchronise
from ..weights.files import DTYPES
from .memory import peak_gib

PROMPT = "a high-resolution photograph of a big red frog on a green leaf"


class Stages:
    """What each stage took: a part is read, run and released before the next, so that the peak is the largest's."""

    def __init__(self, device: torch.device) -> None:
        """Nothing has run yet; parts are to run on the `device`."""
        self.device = device
        forget_peak(device)
        self.figures: dict[str, dict[str, float]] = {}
        self.parameters = 0

    def run(self, name: str, read: Callable[[], Any], run: Callable[[Any], Any]) -> Any:
        """Read a part, use it, and release it.

        Args:
            name: of the stage.
            read: gives the part, whose `module`, where it has one, is counted and placed on the device.
            run: takes the part.

        Returns:
            What `run` gave.
        """
        began = time.perf_counter()
        part = read()
        if hasattr(part, "module"):
            part.module.to(self.device)
            self.parameters += sum(value.numel() for value in part.module.parameters())
        ready = time.perf_counter()
        result = run(part)
        synchronise(self.device)
        self.figures[name] = {
            "read_seconds": ready - began,
            "run_seconds": time.perf_counter() - ready,
            "peak_gib": peak_gib(),
        }
        say(f"{name}: {self.figures[name]}", to_stderr=True)
        return result

    def result(self, image: Tensor) -> dict[str, Any]:
        """The figures by stage, the shape of the image, and how many parameters were read.

        Raises:
            ArithmeticError: the image holds NaN or infinity.
        """
        if not bool(torch.isfinite(image).all()):
            raise ArithmeticError("the image holds NaN or infinity")
        return {"stages": self.figures, "picture": list(image.shape), "parameters": self.parameters}


def conditions(dtype: str, steps: int, written: float, device: torch.device) -> dict[str, Any]:
    """How it was measured, and the peaks of the whole process and of the device's memory (None for a CPU).

    Args:
        dtype: of the nets.
        steps: of each stage.
        written: seconds that writing the random model took.
        device: that the nets ran on.
    """
    return {
        "write_seconds": written,
        "dtype": dtype,
        "precision": describe_dtype(DTYPES[dtype], device),
        "steps": steps,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "peak_gib": peak_gib(),
        "peak_device_gib": device_peak_gib(device),
        "device": describe_device(device),
    }


def text_of(figures: dict[str, Any]) -> str:
    """The figures for people to read."""
    lines = [
        f"{figures['parameters']:,} parameters in {figures['precision']};  {figures['steps']} steps a stage, "
        f"{figures['threads']} threads; image {figures['picture']}"
    ]
    for name, s in figures["stages"].items():
        lines.append(
            f"{name}: read {s['read_seconds']:.1f} s, ran {s['run_seconds']:.1f} s, peak so far {s['peak_gib']:.2f} GiB"
        )
    return "\n".join([*lines, f"peak memory: {figures['peak_gib']:.2f} GiB"])
