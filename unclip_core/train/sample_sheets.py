"""Sheets of samples, as one sees what a training has learned: true images above what the net makes of them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..clip.adapter import TextCondition
from ..data.center_crop import center_crop
from ..data.samples import BadSample, Collection
from ..diffusion.noise import sample_seeds
from ..models import Decoder, Upsampler
from ..pipelines import sample_decoder, upscale
from ..plotting.sheets import levels, tiled
from ..weights.files import whole_file
from .datasets import DecoderDataset
from .targets import Target

COUNT = 8
DECODER_STEPS, GUIDANCE = 25, 2.0
UPSAMPLER_STEPS, UPSAMPLER_COUNT = 8, 4


def decoder_sheet(
    part: Decoder, true: Tensor, embeds: Tensor, text: TextCondition | None = None, **sampling: Any
) -> Tensor:
    """Images `[B, H, W, 3]` in 0..1 above what the decoder draws of their embeddings `[B, D]`: uint8 `[…, …, 3]`.

    sampling: `steps` and so on of `sample_decoder`.
    """
    return _rows(true, sample_decoder(part, embeds, text=text, seeds=sample_seeds(0, len(true)), **sampling))


def upsampler_sheet(part: Upsampler, large: Tensor, **sampling: Any) -> Tensor:
    """Images `[B, H, W, 3]` in 0..1, their small ones enlarged bicubically, and by the upsampler: uint8 `[…, …, 3]`.

    The small images are means of `part.scale` pixels squared. sampling: `steps` and so on of `upscale`.
    """
    small = F.avg_pool2d(large.permute(0, 3, 1, 2), part.scale)
    bicubic = F.interpolate(small, scale_factor=part.scale, mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)
    drawn = upscale(part, small.permute(0, 2, 3, 1), seeds=sample_seeds(0, len(small)), **sampling)
    return _rows(large, bicubic, drawn)


def _rows(*rows: Tensor) -> Tensor:
    """Each of the equally long `rows` `[B, H, W, 3]` in 0..1 as one row of a sheet."""
    return tiled([image for row in rows for image in levels(row)], columns=len(rows[0]))


def save_sheet(image: Tensor, path: Path) -> Tensor:
    """Write the sheet as PNG, whole or not at all; returns it."""
    with whole_file(path) as file:
        Image.fromarray(image.numpy()).save(file, "PNG")
    return image


def decoder_sheets(
    target: Target, samples: DecoderDataset, folder: Path, among: Sequence[int] | None = None
) -> Callable[[int], Tensor]:
    """Make a function of the step: a sheet of some samples, by their embeddings and captions, into the folder.

    `among`: rows to choose from; None takes all.
    """
    rows_there = range(samples.count) if among is None else among
    chosen = [rows_there[place] for place in _evenly(len(rows_there), COUNT)]
    true = torch.stack([center_crop(samples.sample(row).image, samples.size) for row in chosen]).float() / 255
    rows = [samples.store.row(row) for row in chosen]
    embeds = torch.stack([row["image_embeds"] for row in rows])
    text = condition_of(rows, condition_of([samples.store.null()], None))
    steps = min(DECODER_STEPS, target.spec.train_steps)

    def draw(step: int) -> Tensor:
        device = next(target.net.parameters()).device
        image = decoder_sheet(
            target.part, true, embeds.to(device), text.to(device), steps=steps, guidance_scale=GUIDANCE
        )
        return save_sheet(image, sheet_path(folder, step))

    return draw


def upsampler_sheets(
    target: Target, collection: Collection, size: int, folder: Path, among: Sequence[int] | None = None
) -> Callable[[int], Tensor]:
    """Make a function of the step: a sheet of the first samples of about `size` px, made small, into the folder.

    `among`: numbers of the images to choose from; None takes all.
    """
    # By the trained net alone, of whatever size the images are.
    part = replace(target.part, second=None)
    large = (
        _first_squares(
            collection, size // part.scale * part.scale, range(len(collection)) if among is None else among
        ).float()
        / 255
    )
    steps = min(UPSAMPLER_STEPS, part.diffusion.train_steps)

    def draw(step: int) -> Tensor:
        if part.last is not None:
            part.last.to(next(part.net.parameters()).device)
        return save_sheet(upsampler_sheet(part, large, steps=steps), sheet_path(folder, step))

    return draw


def condition_of(rows: list[dict[str, Tensor]], null: TextCondition | None) -> TextCondition:
    """Put rows of an `EmbeddingStore` together to the condition that pipelines take."""
    embeds, states, mask = (
        torch.stack([row[name] for row in rows]) for name in ("text_embeds", "text_states", "text_mask")
    )
    return TextCondition(embeds, states, mask, null)


def _first_squares(collection: Collection, side: int, among: Sequence[int]) -> Tensor:
    found: list[Tensor] = []
    for index in among:
        try:
            found.append(center_crop(collection.read(index, captions=False).image, side))
        except BadSample:
            continue
        if len(found) == UPSAMPLER_COUNT:
            break
    if not found:
        raise ValueError("None of the images can be read.")
    return torch.stack(found)


def _evenly(count: int, wanted: int) -> list[int]:
    chosen = min(count, wanted)
    return [number * count // chosen for number in range(chosen)]


def sheet_path(folder: Path, step: int) -> Path:
    """Name the sheet of a step."""
    return folder / f"{step:08d}.png"
