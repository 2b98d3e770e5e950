"""`unclip bench inversion`: PSNR of images drawn again from embedding and inverted noise, by steps and iterations."""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..diffusion.inversion import psnr
from ..families.loading import SHAPES, placed_model
from ..models import UnclipModel
from ..output import say
from ..pipelines import encode_image, sample_decoder
from ..pipelines.editing import invert_decoder
from ..weights.choices import AUTO
from ..world.render import render
from ..world.scenes import sample_scenes

STEPS = (5, 10, 20, 50, 100)
ITERATIONS = (1, 3)


@dataclass(frozen=True)
class Row:
    """A measurement: the mean and the lowest PSNR in dB of images drawn again, at these settings."""

    steps: int
    iterations: int
    mean: float
    lowest: float


def bench_inversion(
    count: int = 8,
    folder: str | Path | None = None,
    as_json: bool = False,
    steps: Sequence[int] = STEPS,
    iterations: Sequence[int] = ITERATIONS,
    seed: int = 0,
    device: str = AUTO,
) -> list[Row]:
    """Invert `count` held-out scenes with a model (by default that of shapes), print the figures and return them.

    Scenes are rendered at the decoder's size, encoded by the model's CLIP, inverted, and drawn again by ddim from
    embedding and noise, without guidance and without text.

    Raises:
        ValueError: there are no scenes.
    """
    if count < 1:
        raise ValueError(f"inversion cannot be measured on {count} images: at least 1 is needed")
    model = placed_model(folder or SHAPES, device, ("clip", "decoder"), torch.float32)
    images = held_out(count, model.decoder.image_size, seed)
    embeds = encode_image(model.clip, images)
    rows = [_measure(model, images, embeds, number, times) for times in iterations for number in steps]
    say(json.dumps([asdict(row) for row in rows]) if as_json else _table(rows, count))
    return rows


def held_out(count: int, side: int, seed: int) -> Tensor:
    """Render images `[count, side, side, 3]` in 0..1 of scenes with pairs that no training has seen."""
    scenes = sample_scenes(random.Random(seed), count, "held_out")
    return render(scenes, side).movedim(1, -1).contiguous()


def redrawn(model: UnclipModel, images: Tensor, embeds: Tensor, steps: int, iterations: int) -> Tensor:
    """Draw images `[B, S, S, 3]` again from their embeddings `[B, D]` and the noise that inversion finds for them."""
    settings = {"steps": steps, "guidance_scale": 1.0}
    found = invert_decoder(model.decoder, images, embeds, iterations=iterations, **settings)
    seeds = list(range(len(images)))
    return sample_decoder(
        model.decoder, embeds, seeds=seeds, sampler="ddim", start=found.noise, start_error=found.error, **settings
    )


@torch.no_grad()
def _measure(model: UnclipModel, images: Tensor, embeds: Tensor, steps: int, iterations: int) -> Row:
    found = psnr(images, redrawn(model, images, embeds, steps, iterations).cpu())
    return Row(steps, iterations, float(found.mean()), float(found.min()))


def _table(rows: Sequence[Row], count: int) -> str:
    lines = [f"{count} images drawn again from embedding and noise: PSNR in dB", "iterations  steps   mean  lowest"]
    return "\n".join(lines + [f"{r.iterations:10d}  {r.steps:5d}  {r.mean:5.1f}  {r.lowest:6.1f}" for r in rows])
