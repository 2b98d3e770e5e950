"""Sheets of samples while a training goes on: true images above what the averaged weights draw."""

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..clip.adapter import TextCondition
from ..data.center_crop import middle_square
from ..data.samples import BadSample, Collection
from ..diffusion.noise import sample_seeds
from ..models import UPSAMPLER_SETTINGS, Decoder, Upsampler
from ..pipelines import sample_decoder, upscale
from ..weights.files import whole_file
from .datasets import DecoderItems
from .pixels import sheet
from .targets import Subject

COUNT = 8
DECODER_STEPS, GUIDANCE = 25, 2.0
UPSAMPLER_STEPS, UPSAMPLER_COUNT = 8, 4


def decoder_sheet(subject: Subject, items: DecoderItems, folder: Path) -> Callable[[int], Tensor]:
    """A function of the step: draws the first samples from their image embeddings and captions, into the folder."""
    chosen = _evenly(items.count, COUNT)
    true = torch.stack([middle_square(items.sample(row).image, items.size) for row in chosen]).float() / 255
    rows = [items.store.row(row) for row in chosen]
    embeds = torch.stack([row["image_embeds"] for row in rows])
    steps = min(DECODER_STEPS, subject.spec.train_steps)
    text = _condition(rows, _condition([items.store.null()], None))

    def draw(step: int) -> Tensor:
        device = next(subject.net.parameters()).device
        part = Decoder(subject.family, subject.net, subject.spec, items.size)
        drawn = sample_decoder(
            part,
            embeds.to(device),
            text=text.to(device),
            steps=steps,
            guidance_scale=GUIDANCE,
            seeds=sample_seeds(0, len(chosen)),
        )
        return _kept(folder, step, sheet(true, drawn))

    return draw


def upsampler_sheet(subject: Subject, collection: Collection, size: int, folder: Path) -> Callable[[int], Tensor]:
    """A function of the step: enlarges the first samples, made small, into the folder; between them the bicubic."""
    scale = subject.header["scale"]
    side = size // scale
    squares = _squares(collection, side * scale)
    large = squares.float() / 255
    small = F.avg_pool2d(large.permute(0, 3, 1, 2), scale).permute(0, 2, 3, 1)
    plain = F.interpolate(small.permute(0, 3, 1, 2), scale_factor=scale, mode="bicubic").clamp(0, 1).permute(0, 2, 3, 1)

    def draw(step: int) -> Tensor:
        given = subject.template
        part = Upsampler(
            subject.family,
            subject.net,
            subject.spec,
            scale,
            None if given is None else given.last,
            subject.clamp,
            UPSAMPLER_SETTINGS if given is None else given.settings,
        )
        if part.last is not None:
            part.last.to(next(subject.net.parameters()).device)
        drawn = upscale(
            part,
            small,
            steps=min(UPSAMPLER_STEPS, part.diffusion.train_steps),
            seeds=sample_seeds(0, len(small)),
        )
        return _kept(folder, step, sheet(large, plain, drawn))

    return draw


def _condition(rows: list[dict[str, Tensor]], null: TextCondition | None) -> TextCondition:
    names = ("text_embeds", "text_states", "text_mask")
    return TextCondition(*(torch.stack([row[name] for row in rows]) for name in names), null)


def _squares(collection: Collection, side: int) -> Tensor:
    found: list[Tensor] = []
    for index in range(len(collection)):
        try:
            found.append(middle_square(collection.read(index, captions=False).image, side))
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


def _kept(folder: Path, step: int, image: Tensor) -> Tensor:
    with whole_file(folder / f"{step:08d}.png") as file:
        Image.fromarray(image.numpy()).save(file, "PNG")
    return image
