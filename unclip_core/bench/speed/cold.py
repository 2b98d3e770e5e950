"""Cold-start time by phase: from the start of a fresh process to its first image, imports and all."""

import statistics
import time

from ...fresh_process import ask

HERE = __name__
ROOT = HERE.split(".unclip_core")[0]
"""The package's name: "unclip" where it is installed, its folder's name where it runs from its sources."""

# Torch is imported first and on its own, so that what follows is the pack's own cost.
PROGRAM = f"""
import json, sys, time
laps = [time.perf_counter()]
import torch
laps.append(time.perf_counter())
import {ROOT}
laps.append(time.perf_counter())
from {HERE} import first_image
first_image(laps, sys.argv[1])
print(json.dumps(laps))
"""
PHASES = ("torch", "pack", "load", "draw")
MODELS = ("things", "shapes")
"""The bundled models, of which the first is the default."""
PROMPT = "a large red circle above a small blue square on a white background"


def cold_seconds(repeats: int = 3, model: str = MODELS[0]) -> dict[str, float]:
    """Time fresh processes that draw one image with a bundled model and its own settings, in fp32 on the CPU.

    Args:
        repeats: processes, 1 or more, of which the medians count.
        model: one of `MODELS`.

    Returns:
        Seconds by phase, medians over `repeats` processes: "interpreter" (Python's own start and end), "torch" and
        "pack" (imports), "load" (weights and what reads them), "draw" (prompt to image), and "all".

    Raises:
        ValueError: `repeats` is below 1.
        FailedProcess: a process failed; the message ends with what it said.
    """
    if repeats < 1:
        raise ValueError(f"A cold start is measured by 1 process or more, not {repeats}.")
    runs = [_cold_run(model) for _ in range(repeats)]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def first_image(laps: list[float], name: str = MODELS[0]) -> None:
    """Load the bundled model of that name and draw with it; appends the time after each to `laps`."""
    from ...families.loading import load_model
    from ...pipelines import text_to_image

    model = load_model(f"bundled ({name})")
    for part in (model.clip, model.prior, model.decoder, model.upsampler):
        part.module.eval()
    laps.append(time.perf_counter())
    text_to_image(model, [PROMPT], [0])
    laps.append(time.perf_counter())


def _cold_run(model: str) -> dict[str, float]:
    began = time.perf_counter()
    laps = ask("A fresh process", ["-c", PROGRAM, model])
    whole = time.perf_counter() - began
    phases = dict(zip(PHASES, (b - a for a, b in zip(laps[:-1], laps[1:], strict=True)), strict=True))
    return {"interpreter": whole - (laps[-1] - laps[0]), **phases, "all": whole}
