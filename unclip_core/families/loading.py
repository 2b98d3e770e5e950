"""From a folder to a model, whatever its family."""

from pathlib import Path

import torch

from ..models import UnclipModel
from .detect import reader_of

BUNDLED = Path(__file__).parents[1] / "bundled" / "shapes"


def load_model(
    path: str | Path | None = None, dtype: torch.dtype = torch.float32, conventions: str = "native"
) -> UnclipModel:
    """The model in folder `path`, or the bundled one; nothing but its index is read yet.

    Args:
        path: a folder of the project's own format, a diffusers folder of an unCLIP pipeline, or a folder with
            kakaobrain's own Karlo files.
        dtype: what the weights of prior, decoder and upsampler are cast to; CLIP stays float32.
        conventions: "native" or "diffusers", where the two differ over Karlo: tables, timesteps, clipping, tokens
            and preparation of images.

    Raises:
        CheckpointError: the folder holds no model that can be read.
    """
    folder = BUNDLED if path is None else Path(path)
    return UnclipModel(name=folder.name, folder=folder, reader=reader_of(folder, dtype, conventions))
