"""How our program holds a model's parts while it is timed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ...weights.files import DTYPES


def read_parts(job: dict[str, Any], device: torch.device, names: Sequence[str]) -> Callable[[str], Any]:
    """Read every part once, and return what gives a part by its name.

    On a CPU it reads the part anew each time, so that no more than the one that runs is held. On a device all parts are
    kept there, as diffusers keeps them.
    """
    from ...families.loading import load_model

    reader = load_model(Path(job["folder"]), DTYPES[job["dtype"]], conventions="diffusers").reader
    if device.type == "cpu":
        for name in names:
            getattr(reader, name)()
        return lambda name: getattr(reader, name)()
    kept = {name: getattr(reader, name)() for name in names}
    for part in kept.values():
        part.module.to(device)
    return kept.__getitem__
