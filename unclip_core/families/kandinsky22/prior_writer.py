"""Write a prior's folder of Kandinsky 2.2 in diffusers' layout: safetensors, the index last."""

from pathlib import Path
from typing import Any

import torch

from ...models import UnclipModel
from ..karlo.writer import FolderWriter


class PriorFolderWriter(FolderWriter):
    """As Karlo's, under the names that a prior's folder has."""

    processor, prior_scheduler = "image_processor", "scheduler"
    pipeline = "KandinskyV22PriorPipeline"


def convert_prior(model: UnclipModel, target: Path, dtype: torch.dtype) -> Path:
    """Write CLIP and prior of the model to the new folder `target`, one after the other; returns the folder.

    Raises:
        CheckpointError: the target is not empty, or the model lacks either.
        OSError: the disk is full; the folder is then no model, as it has no index.
    """
    writer = PriorFolderWriter(target, dtype)
    adapter: Any = model.reader.clip().adapter
    writer.text(adapter.model.text, adapter.tokenizer)
    if adapter.has_vision:
        writer.vision(adapter.vision_tower(), adapter.image_input)
    del adapter
    prior: Any = model.reader.prior()
    writer.prior(prior.net, prior.diffusion)
    writer.finish()
    return writer.folder
