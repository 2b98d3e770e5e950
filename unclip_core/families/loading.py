"""Load a model folder, whatever its family."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..clip.tokenizer import CONVENTIONS
from ..models import PARTS, UnclipModel
from ..weights.choices import AUTO
from ..weights.computing import tell_computing
from ..weights.devices import choose_device, own_dtype
from .detect import family_of

_BUNDLED = Path(__file__).parents[1] / "bundled"
THINGS, SHAPES = _BUNDLED / "things", _BUNDLED / "shapes"
"""The models that ship: of things, which is what people meet, and of shapes, for exact measures and for tests."""
BUNDLED = {
    "bundled (things)": THINGS,
    "bundled (shapes)": SHAPES,
    "bundled (tiny)": SHAPES,
    "bundled": SHAPES,
}
"""What the models that ship are called in workflows, configurations and commands; the last two names are from before
there were two, and still mean what they meant."""


def load_model(
    path: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    conventions: str = "native",
    *,
    prior: str | Path | None = None,
) -> UnclipModel:
    """Open a model; weights are read when a part is first used.

    Args:
        path: a model folder of any family in `families.registry`, or a name in `BUNDLED`; None is that of things.
        dtype: what the weights of prior, decoder and upsampler are cast to; CLIP stays float32.
        conventions: "native" or "diffusers", where the two differ: tables, timesteps, clipping, tokens and preparation
            of images.
        prior: a folder whose prior takes the place of the model's own; its CLIP too where the model has none.

    Raises:
        CheckpointError: the folder holds no model that can be read, or the prior does not fit it.
        ValueError: the conventions are unknown.
    """
    if conventions not in CONVENTIONS:
        raise ValueError(f"unknown conventions {conventions!r}; known: {', '.join(CONVENTIONS)}")
    folder = model_folder(path)
    family = family_of(folder)
    reader = family.read(folder, dtype, conventions)
    if prior is not None:
        other = model_folder(prior)
        reader = family.with_prior(reader, family_of(other).read(other, dtype, conventions), other)
    return UnclipModel(name=folder.name, folder=folder, reader=reader)


def placed_model(
    path: str | Path | None = None,
    device: str = AUTO,
    parts: Sequence[str] = PARTS,
    dtype: torch.dtype | None = None,
) -> UnclipModel:
    """Open a model and put some of its parts, those of them that it has, on a device.

    Args:
        path: as of `load_model`.
        device: such as "cpu" or "cuda:1"; "auto" is the machine's best.
        parts: of `PARTS`.
        dtype: as of `load_model`; None is what the device computes in by itself, see `own_dtype`.

    Raises:
        CheckpointError: as `load_model`.
        ValueError: this machine has no such device.
    """
    place = choose_device(device)
    held = own_dtype(place) if dtype is None else dtype
    tell_computing(held, place)
    model = load_model(path, held)
    for name in parts:
        if model.has(name):
            getattr(model, name).module.to(place)
    return model


def model_folder(path: str | Path | None) -> Path:
    """The folder of what `load_model` takes."""
    return THINGS if path is None else BUNDLED.get(str(path), Path(path))
