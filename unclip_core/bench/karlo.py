"""`unclip bench karlo`: time and memory of Karlo at its real size with random weights, stage by stage."""

import json
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..families.karlo.random_weights import SIZES
from ..families.loading import load_model
from ..models import UnclipModel
from ..output import say
from ..pipelines import encode_text, sample_decoder, sample_prior, upscale
from ..weights.choices import AUTO
from ..weights.devices import choose_device
from ..weights.files import DTYPES
from .memory import apart
from .random_karlo import random_karlo
from .stages import PROMPT, Stages, conditions, text_of


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
    with ExitStack() as cleanup:
        place = Path(folder or cleanup.enter_context(tempfile.TemporaryDirectory()) + "/karlo")
        began = time.perf_counter()
        write = partial(apart, random_karlo) if size == "full" else random_karlo
        write(place, SIZES[size](), dtype)
        written = time.perf_counter() - began
        figures = _run(load_model(place, DTYPES[dtype]), steps, where) | conditions(dtype, steps, written, where)
    say(json.dumps(figures, indent=2) if as_json else text_of(figures))
    return figures


def _run(model: UnclipModel, steps: int, where: torch.device) -> dict[str, Any]:
    stages, reader = Stages(where), model.reader
    rest: dict[str, Any] = {"steps": steps, "seeds": [0], "sampler": "ddpm"}
    text = stages.run("clip", reader.clip, lambda part: encode_text(part, [PROMPT]))
    embeds = stages.run("prior", reader.prior, lambda part: sample_prior(part, text, guidance_scale=4.0, **rest))
    small = stages.run(
        "decoder",
        reader.decoder,
        lambda part: sample_decoder(part, embeds, text=text, guidance_scale=8.0, **rest),
    )
    return stages.result(stages.run("super-resolution", reader.upsampler, lambda part: upscale(part, small, **rest)))
