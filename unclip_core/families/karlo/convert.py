"""Karlo to a folder of safetensors in diffusers' layout."""

from pathlib import Path
from typing import Any

import torch

from ...models import UnclipModel
from .writer import FolderWriter


def convert(model: UnclipModel, target: Path, dtype: torch.dtype) -> Path:
    """Write the parts that the model has to the new folder `target`, one after the other; returns the folder.

    Raises:
        CheckpointError: the model lacks what any Karlo has, or the target is not empty.
        OSError: the disk is full; the folder is then no model, as it has no index.
    """
    writer = FolderWriter(target, dtype)
    adapter: Any = model.reader.clip().adapter
    if adapter.model.text is not None:
        writer.text(adapter.model.text, adapter.tokenizer)
    if adapter.has_vision:
        writer.vision(adapter.vision_tower(), adapter.image_input)
    del adapter
    if model.has("prior"):
        prior: Any = model.reader.prior()
        writer.prior(prior.net, prior.diffusion)
        del prior
    decoder = model.reader.decoder()
    writer.decoder(decoder.net, decoder.diffusion)
    size = decoder.image_size
    del decoder
    if model.has("upsampler"):
        upsampler: Any = model.reader.upsampler()
        writer.upsampler(upsampler.net, upsampler.last, size * upsampler.scale, upsampler.diffusion)
    writer.finish()
    return writer.folder
