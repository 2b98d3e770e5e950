"""`unclip bench tiny`: how long a bundled model takes, stage by stage, and how much memory."""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from ..diffusion.noise import sample_seeds
from ..families.loading import load_model
from ..models import UnclipModel
from ..output import say
from ..pipelines import text_to_image
from ..weights.choices import AUTO
from ..weights.computing import describe_dtype
from ..weights.devices import choose_device, describe_device, device_peak_gib, forget_peak, synchronise
from ..weights.files import DTYPES
from .memory import peak_gib
from .speed.cold import MODELS, PROMPT, cold_seconds


def bench_tiny(
    repeats: int = 5,
    batch: int = 16,
    as_json: bool = False,
    dtype: str = "fp32",
    device: str = AUTO,
    model: str = MODELS[0],
    cold: int = 3,
) -> dict[str, Any]:
    """Time a bundled model with default settings, print the figures and return them.

    Args:
        repeats: runs after one that warms up; medians are given.
        batch: the larger batch, compared with a batch of one.
        as_json: print JSON in place of text.
        dtype: of the nets, a name in `DTYPES` (on a CPU "bf16" is faster only where it has instructions for it).
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.
        model: "things" or "shapes".
        cold: fresh processes of which the median counts; 0 measures no cold start.

    Returns:
        `model`, `side` of its images (px), `seconds` by stage and in all for batch 1,
        `batch_seconds` by stage and in all for `batch`, `batch_over_one`
        the ratio of both in all, `cold_seconds` from a command's start to its first image (see `cold_seconds`; in
        fp32, on the CPU; empty if not asked for), `peak_memory_gib` of this process, `peak_device_gib` of the device's
        memory (None for a CPU), `device`, `threads`.

    Raises:
        ValueError: this machine has no such device, or a number is out of range.
        FailedProcess: a fresh process failed.
    """
    if min(repeats, batch) < 1 or cold < 0:
        raise ValueError(f"--repeats must be 1 or more and --cold 0 or more, got {repeats} and {cold}.")
    place = choose_device(device)
    loaded = load_model(f"bundled ({model})", dtype=DTYPES[dtype])
    for part in (loaded.clip, loaded.prior, loaded.decoder, loaded.upsampler):
        part.module.to(place)
    forget_peak(place)
    one = _median_stages(lambda: _stage_seconds(loaded, 1, place), repeats)
    many = _median_stages(lambda: _stage_seconds(loaded, batch, place), max(1, repeats // 2))
    figures = {
        "model": model,
        "side": loaded.decoder.image_size * loaded.upsampler.scale,
        "seconds": one,
        "batch": batch,
        "batch_seconds": many,
        "batch_over_one": many["all"] / one["all"],
        "cold_seconds": cold_seconds(cold, model) if cold else {},
        "dtype": dtype,
        "precision": describe_dtype(DTYPES[dtype], place),
        "peak_memory_gib": peak_gib(),
        "peak_device_gib": device_peak_gib(place),
        "device": describe_device(place),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    say(json.dumps(figures, indent=2) if as_json else _text(figures))
    return figures


def _stage_seconds(model: UnclipModel, count: int, device: torch.device) -> dict[str, float]:
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        synchronise(device)
        now = time.perf_counter()
        seconds[{"upsampler": "upscale"}.get(stage, stage)], clock = now - clock, now

    text_to_image(model, [PROMPT] * count, sample_seeds(0, count), on_stage=lap)
    return {**seconds, "all": sum(seconds.values())}


def _median_stages(run: Callable[[], dict[str, float]], repeats: int) -> dict[str, float]:
    run()
    runs = [run() for _ in range(repeats)]
    return {stage: statistics.median(r[stage] for r in runs) for stage in runs[0]}


def _text(figures: dict[str, Any]) -> str:
    one, many, cold = (_stages(figures[name]) for name in ("seconds", "batch_seconds", "cold_seconds"))
    fresh = f"cold, a fresh process: {cold}\n" if cold else ""
    return (
        f"bundled model of {figures['model']}, prompt to {figures['side']} px, warm, {figures['device']}, "
        f"{figures['threads']} threads, {figures['precision']}; {one}\n"
        f"batch of {figures['batch']}: {many}; {figures['batch_over_one']:.1f} x the time of one\n"
        f"{fresh}peak memory: {figures['peak_memory_gib']:.2f} GiB{_of_device(figures['peak_device_gib'])}"
    )


def _of_device(peak: float | None) -> str:
    return "" if peak is None else f", of the device {peak:.2f} GiB"


def _stages(seconds: dict[str, float]) -> str:
    return "  ".join(f"{stage} {value:.2f} s" for stage, value in seconds.items())
