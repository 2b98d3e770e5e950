"""How either program holds a model's parts while it is timed."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ...weights.files import DTYPES


def read_parts(job: dict[str, Any], device: torch.device, names: Sequence[str]) -> Callable[[str], Any]:
    """Read every part once, and return what gives a part by its name.

    On a CPU it reads the part anew each time, so that no more than the one that runs is held. On a device all parts are
    kept there, as diffusers keeps them, or, if the job says `offload`, the one that runs alone, see `Offloaded`.
    """
    from ...families.loading import load_model

    reader = load_model(Path(job["folder"]), DTYPES[job["dtype"]], conventions="diffusers").reader
    if device.type == "cpu":
        for name in names:
            getattr(reader, name)()
        return lambda name: getattr(reader, name)()
    kept = {name: getattr(reader, name)() for name in names}
    if job.get("offload"):
        return Offloaded(kept, device)
    for part in kept.values():
        part.module.to(device)
    return kept.__getitem__


class Offloaded:
    """Parts that wait in main memory; the one asked for last is on the device, as where ComfyUI needs the room."""

    def __init__(self, parts: Mapping[str, Any], device: torch.device) -> None:
        """None of the parts is on the device yet."""
        self._parts, self._device, self._there = parts, device, ""

    def __call__(self, name: str) -> Any:
        """The part of that name, on the device."""
        if name != self._there:
            if self._there:
                self._parts[self._there].module.to("cpu")
            self._parts[name].module.to(self._device)
            self._there = name
        return self._parts[name]


def place_pipeline(pipeline: Any, job: dict[str, Any], device: torch.device) -> None:
    """Put a pipeline of diffusers on the device: whole, or, if the job says `offload`, model by model as each runs."""
    if job.get("offload"):
        pipeline.enable_model_cpu_offload(device=device)
    else:
        pipeline.to(device)
