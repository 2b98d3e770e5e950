"""Karlo to a folder of safetensors in diffusers' layout."""

from pathlib import Path
from typing import Any

import torch

from ...models import UnclipModel
from .writer import FolderWriter


def convert(model: UnclipModel, target: Path, dtype: torch.dtype) -> Path:
    """Write the parts that the model has to the new folder `target`, one after the other; returns the folder.

    Raises:
        CheckpointError: the model lacks what any Karlo has, the target is not empty, or the layout cannot say what the
            model is. Nothing is left behind, as after all that follows.
        OSError: the disk is full.
    """
    with FolderWriter(target, dtype) as writer:
        _write(writer, model)
    return target


def _write(writer: FolderWriter, model: UnclipModel) -> None:
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
