"""Load a model folder, whatever its family."""

from pathlib import Path

import torch

from ..clip.tokenizer import CONVENTIONS
from ..models import UnclipModel
from .detect import family_of

BUNDLED = Path(__file__).parents[1] / "bundled" / "shapes"


def load_model(
    path: str | Path | None = None, dtype: torch.dtype = torch.float32, conventions: str = "native"
) -> UnclipModel:
    """Open the model in folder `path`, or the bundled one; weights are read when a part is first used.

    Args:
        path: a model folder of any family in `families.registry`.
        dtype: what the weights of prior, decoder and upsampler are cast to; CLIP stays float32.
        conventions: "native" or "diffusers", where the two differ: tables, timesteps, clipping, tokens and preparation
            of images.

    Raises:
        CheckpointError: the folder holds no model that can be read.
        ValueError: the conventions are unknown.
    """
    if conventions not in CONVENTIONS:
        raise ValueError(f"unknown conventions {conventions!r}; known: {', '.join(CONVENTIONS)}")
    folder = BUNDLED if path is None else Path(path)
    reader = family_of(folder).read(folder, dtype, conventions)
    return UnclipModel(name=folder.name, folder=folder, reader=reader)
