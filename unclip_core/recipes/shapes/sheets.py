"""Sheets of samples, drawn with the averaged weights at every checkpoint: what a training has learned, to look at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ...diffusion.noise import sample_seeds
from ...models import Decoder, Upsampler
from ...pipelines import sample_decoder, to_images, upscale
from . import decoder, upsampler
from .batches import WorldBatches
from .loop import Loop

COUNT = 16
SHEET_STEP = -1000
"""The step whose batch the sheets show; trainings count up from 0."""


def save_decoder_sheet(loop: Loop, net: nn.Module, batches: WorldBatches, path: Path) -> None:
    """True images above what the decoder draws of their image embeddings alone."""
    batch = batches.draw(SHEET_STEP)
    with _averaged(loop):
        part = Decoder("tiny", net, decoder.DIFFUSION, net.params.image_size)
        embeds = batch.image_embeds[:COUNT]
        drawn = sample_decoder(
            part,
            embeds,
            seeds=sample_seeds(0, len(embeds)),
        )
    _save_rows([to_images(batch.images[:COUNT]), drawn], path)


def save_upsampler_sheet(loop: Loop, net: nn.Module, images: Tensor, path: Path) -> None:
    """True images `[B, 3, H, W]` in -1..1 above what the upsampler makes of them at a quarter of their size."""
    small = to_images(nn.functional.avg_pool2d(images[:4], upsampler.SCALE))
    with _averaged(loop):
        part = Upsampler("tiny", net, upsampler.DIFFUSION, upsampler.SCALE)
        drawn = upscale(part, small, seeds=sample_seeds(0, len(small)))
    _save_rows([to_images(images[:4]), drawn], path)


@contextmanager
def _averaged(loop: Loop) -> Iterator[None]:
    """The module with its averaged parameters, for the length of a block."""
    trained = {name: tensor.clone() for name, tensor in loop.module.state_dict().items()}
    loop.module.load_state_dict(loop.averaged())
    try:
        yield
    finally:
        loop.module.load_state_dict(trained)


def _save_rows(rows: Sequence[Tensor], path: Path) -> None:
    """Each tensor `[B, H, W, 3]` in 0..1 as a row of the sheet."""
    sheet = torch.cat([torch.cat(list(row.cpu()), dim=1) for row in rows], dim=0)
    Image.fromarray((sheet * 255).round().to(torch.uint8).numpy()).save(path)
