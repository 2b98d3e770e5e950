"""Writes a trained part into a copy of a Karlo folder in diffusers' layout."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ...listing import files_below
from ...models import UnclipModel
from ...weights.files import Entry, stream_weights, write_whole
from ..detect import read_any_index
from ..placing import copy_or_link
from ..registry import INDEX, TrainedPart
from ..statistics import STATISTICS
from . import names
from .kakao_reader import KakaoFolder
from .writer import check_folder

COMPONENTS = {
    "prior": {"prior": ("", names.PRIOR)},
    "decoder": {"text_proj": ("conditioner.", names.TEXT_PROJECTION), "decoder": ("unet.", names.UNET)},
    "upsampler": {"super_res_first": ("unet.", names.UNET)},
}
"""The folders of each part, with the prefix of their keys in our nets and the rules for their names."""
WEIGHTS = "diffusion_pytorch_model.safetensors"


def check_trainable(model: UnclipModel, stage: str, new: bool, output: Path) -> None:
    """See `Family.check_trainable`."""
    if isinstance(model.reader, KakaoFolder):
        raise ValueError(
            f"'{model.folder}' holds kakaobrain's own files: make a folder of safetensors of them first, "
            f"unclip convert '{model.folder}' NEW_FOLDER, and name that as base."
        )
    if model.folder.resolve() == output.resolve():
        raise ValueError(
            f"'{model.folder}' is base and output: name another folder as --output, so that the weights stay."
        )
    if stage == "clip" or new:
        raise ValueError(
            f"'{model.folder}' is a Karlo: its prior, decoder and upsampler can be trained on (start = "
            '"base"), but neither its CLIP, which all of them rest on, nor new nets in their place.'
        )


def write_trained(base: Path, output: Path, part: TrainedPart) -> None:
    """Copy what `output` lacks of the base's files, write the part's weights, then the index.

    Raises:
        CheckpointError: the reader would refuse what was written; there is no index then.
    """
    written = _components_of(part)
    for path in (path for path in files_below(base) if path.is_file()):
        inner = path.relative_to(base)
        if inner.name != INDEX and not (_is_weights(path) and _is_replaced(inner.parts[0], written, output)):
            copy_or_link(path, output / inner)
    for name, entries in written.items():
        stream_weights(output / name / WEIGHTS, entries)
    check_folder(output, part.dtype, read_any_index(base))
    write_whole(output / INDEX, (base / INDEX).read_bytes())


def _components_of(part: TrainedPart) -> dict[str, list[Entry]]:
    return {
        name: [
            _entry(key.removeprefix(prefix), tensor, rules, part.dtype)
            for key, tensor in part.tensors.items()
            if key.startswith(prefix)
        ]
        for name, (prefix, rules) in COMPONENTS[part.stage].items()
    }


def _is_weights(path: Path) -> bool:
    return path.suffix in (".safetensors", ".bin", ".pt") or path.name.endswith(".index.json")


def _is_replaced(component: str, written: Mapping[str, list[Entry]], output: Path) -> bool:
    """Whether weights of the component are about to be written, or were written by an earlier training."""
    return component in written or (output / component / WEIGHTS).is_file()


def _entry(key: str, tensor: Tensor, rules: names.Rules, dtype: torch.dtype) -> Entry:
    own = torch.float32 if key in STATISTICS else dtype
    return Entry(names.renamed(key, rules), own, tuple(tensor.shape), lambda: tensor.detach())
