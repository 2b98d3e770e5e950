"""`unclip bench karlo`: time and memory of Karlo at its real size with random weights, stage by stage."""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..families.karlo.random_weights import SIZES
from ..families.loading import load_model
from ..models import UnclipModel
from ..output import say
from ..pipelines import encode_text, sample_decoder, sample_prior, upscale
from ..weights.devices import AUTO, choose_device, describe_device, device_peak_gib, forget_peak, synchronise
from ..weights.files import DTYPES
from .memory import peak_gib
from .random_karlo import random_karlo

PROMPT = "a high-resolution photograph of a big red frog on a green leaf"


def bench_karlo(
    size: str = "full",
    dtype: str = "bf16",
    steps: int = 2,
    folder: str | None = None,
    as_json: bool = False,
    device: str = AUTO,
) -> dict[str, Any]:
    """Draw one image from a prompt, print the time and memory of each stage, and return them.

    Each part is read, run and released before the next, so that the peak is that of the largest.

    Args:
        size: "full" or "small", of the random model.
        dtype: of its file and of the nets.
        steps: of each stage.
        folder: a model to run, or where to write the random one and leave it; by default a temporary folder.
        as_json: print JSON in place of text.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.

    Returns:
        `stages`: by name, `read_seconds`, `run_seconds`, `peak_gib` (of the process, so far); `peak_gib` in all, and
        `peak_device_gib` of the device's memory (None for a CPU); `device`;
        `picture`: the image's shape; `parameters`: how many were read; and how it was measured.

    Raises:
        CheckpointError: the folder holds something other than a model.
    """
    where = choose_device(device)
    forget_peak(where)
    with ExitStack() as cleanup:
        place = Path(folder or cleanup.enter_context(tempfile.TemporaryDirectory()) + "/karlo")
        began = time.perf_counter()
        random_karlo(place, SIZES[size](), dtype)
        written = time.perf_counter() - began
        figures = _run(load_model(place, DTYPES[dtype]), steps, where)
    figures |= {
        "write_seconds": written,
        "dtype": dtype,
        "steps": steps,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "peak_gib": peak_gib(),
        "peak_device_gib": device_peak_gib(where),
        "device": describe_device(where),
    }
    say(json.dumps(figures, indent=2) if as_json else _text(figures))
    return figures


def _run(model: UnclipModel, steps: int, where: torch.device) -> dict[str, Any]:
    stages: dict[str, dict[str, float]] = {}
    counted = [0]

    def stage(name: str, read: Callable[[], Any], run: Callable[[Any], Any]) -> Any:
        began = time.perf_counter()
        part = read()
        part.module.to(where)
        ready = time.perf_counter()
        counted[0] += sum(value.numel() for value in part.module.parameters())
        result = run(part)
        synchronise(where)
        stages[name] = {
            "read_seconds": ready - began,
            "run_seconds": time.perf_counter() - ready,
            "peak_gib": peak_gib(),
        }
        say(f"{name}: {stages[name]}", to_stderr=True)
        del part
        return result

    text = stage("clip", model.reader.clip, lambda part: encode_text(part, [PROMPT]))
    settings = {"steps": steps, "seeds": [0], "sampler": "ddpm"}
    embeds = stage("prior", model.reader.prior, lambda part: sample_prior(part, text, guidance_scale=4.0, **settings))
    small = stage(
        "decoder",
        model.reader.decoder,
        lambda part: sample_decoder(part, embeds, text=text, guidance_scale=8.0, **settings),
    )
    large: Tensor = stage("super-resolution", model.reader.upsampler, lambda part: upscale(part, small, **settings))
    if not bool(torch.isfinite(large).all()):
        raise ArithmeticError("the image holds NaN or infinity")
    return {"stages": stages, "picture": list(large.shape), "parameters": counted[0]}


def _text(figures: dict[str, Any]) -> str:
    lines = [
        f"{figures['parameters']:,} parameters in {figures['dtype']}, {figures['steps']} steps a stage, "
        f"{figures['threads']} threads; image {figures['picture']}"
    ]
    for name, s in figures["stages"].items():
        lines.append(
            f"{name}: read {s['read_seconds']:.1f} s, ran {s['run_seconds']:.1f} s, peak so far {s['peak_gib']:.2f} GiB"
        )
    return "\n".join([*lines, f"peak memory: {figures['peak_gib']:.2f} GiB"])
