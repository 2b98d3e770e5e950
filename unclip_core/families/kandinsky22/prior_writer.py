"""Write a prior's folder of Kandinsky 2.2 in diffusers' layout: safetensors, the index last."""

from pathlib import Path
from typing import Any

import torch

from ...models import UnclipModel
from ..detect import read_any_index
from ..karlo.writer import FolderWriter
from .prior_reader import PriorFolder


class PriorFolderWriter(FolderWriter):
    """As Karlo's, under the names that a prior's folder has."""

    processor, prior_scheduler = "image_processor", "scheduler"
    pipeline = "KandinskyV22PriorPipeline"

    def check(self) -> None:
        """Have the reader of a prior's folder check what was written; raises CheckpointError."""
        PriorFolder(self.folder, read_any_index(self.folder), self.dtype, "diffusers").check()


def convert_prior(model: UnclipModel, target: Path, dtype: torch.dtype) -> Path:
    """Write CLIP and prior of the model to the new folder `target`, one after the other; returns the folder.

    Raises:
        CheckpointError: the target is not empty, the model lacks either, or the layout cannot say what they are.
            Nothing is left behind, as after what follows.
        OSError: the disk is full.
    """
    with PriorFolderWriter(target, dtype) as writer:
        adapter: Any = model.reader.clip().adapter
        writer.text(adapter.model.text, adapter.tokenizer)
        if adapter.has_vision:
            writer.vision(adapter.vision_tower(), adapter.image_input)
        del adapter
        prior: Any = model.reader.prior()
        writer.prior(prior.net, prior.diffusion)
    return target
