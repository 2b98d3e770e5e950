"""`unclip bench kandinsky22`: time and memory of Kandinsky 2.2 at its real size with random weights, part by part."""

import json
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..families.kandinsky22.random_decoder import DecoderSizes
from ..families.kandinsky22.random_decoder import full_size as full_decoder
from ..families.kandinsky22.random_decoder import small_size as small_decoder
from ..families.kandinsky22.random_prior import PriorSizes
from ..families.kandinsky22.random_prior import full_size as full_prior
from ..families.kandinsky22.random_prior import small_size as small_prior
from ..families.loading import load_model
from ..output import say
from ..pipelines import Canvas, encode_text, sample_decoder, sample_prior
from ..weights.choices import AUTO
from ..weights.devices import choose_device
from ..weights.files import DTYPES
from .memory import apart
from .random_kandinsky import random_kandinsky
from .stages import PROMPT, Stages, conditions, text_of

SIZES: dict[str, tuple[Callable[[], PriorSizes], Callable[[], DecoderSizes]]] = {
    "full": (full_prior, full_decoder),
    "small": (small_prior, small_decoder),
}


def bench_kandinsky(
    size: str = "full",
    dtype: str = "bf16",
    steps: int = 2,
    side: int = 768,
    folder: str | None = None,
    as_json: bool = False,
    device: str = AUTO,
) -> dict[str, Any]:
    """Draw one image from a prompt, print the time and memory of each stage, and return them.

    Each part is read, run and released before the next. What "no image" is, which guidance asks the image encoder once,
    is found while the decoder is there, as in any other run.

    Args:
        size: "full" or "small", of the random model.
        dtype: of its files and of the nets.
        steps: of prior and decoder.
        side: of the image, px.
        folder: where to write the random model and leave it, or where one is; by default a temporary folder.
        as_json: print JSON in place of text.
        device: what the nets run on, such as "cpu" or "cuda:1"; "auto" is the machine's best.

    Returns:
        As `bench_karlo`.

    Raises:
        CheckpointError: the folder holds something other than a Kandinsky's two folders.
    """
    where = choose_device(device)
    with ExitStack() as cleanup:
        place = Path(folder or cleanup.enter_context(tempfile.TemporaryDirectory()))
        began = time.perf_counter()
        prior, decoder = SIZES[size]
        write = partial(apart, random_kandinsky) if size == "full" else random_kandinsky
        model = write(place, prior(), decoder(), dtype)
        written = time.perf_counter() - began
        figures = _run(load_model(model, DTYPES[dtype]).reader, steps, side, where) | conditions(
            dtype, steps, written, where
        )
    say(json.dumps(figures, indent=2) if as_json else text_of(figures))
    return figures


def _run(reader: Any, steps: int, side: int, where: torch.device) -> dict[str, Any]:
    stages = Stages(where)
    rest: dict[str, Any] = {"steps": steps, "seeds": [0], "sampler": "ddpm", "guidance_scale": 4.0}
    text = stages.run("text encoder", reader.clip, lambda part: encode_text(part, [PROMPT]))
    embeds = stages.run("prior", reader.prior, lambda part: sample_prior(part, text, **rest))
    image = stages.run(
        "decoder and MoVQ",
        reader.decoder,
        lambda part: sample_decoder(part, embeds, canvas=Canvas(size=(side, side)), **rest),
    )
    return stages.result(image)
