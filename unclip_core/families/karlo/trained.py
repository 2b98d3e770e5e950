"""Writes a trained part into a copy of a Karlo folder in diffusers' layout."""

from pathlib import Path

from ...models import UnclipModel
from ...weights.files import Entry
from ..registry import TrainedPart
from ..trained_folder import refuse_same_folder, trained_entry, write_copy
from . import names
from .kakao_reader import KakaoFolder
from .writer import check_folder

COMPONENTS = {
    "prior": {"prior": ("", names.PRIOR)},
    "decoder": {"text_proj": ("conditioner.", names.TEXT_PROJECTION), "decoder": ("unet.", names.UNET)},
    "upsampler": {"super_res_first": ("unet.", names.UNET)},
}
"""The folders of each part, with the prefix of their keys in our nets and the rules for their names."""


def check_trainable(model: UnclipModel, stage: str, new: bool, output: Path) -> None:
    """See `Family.check_trainable`."""
    if isinstance(model.reader, KakaoFolder):
        raise ValueError(
            f"'{model.folder}' holds kakaobrain's own files: make a folder of safetensors of them first, "
            f"unclip convert '{model.folder}' NEW_FOLDER, and name that as base."
        )
    refuse_same_folder(model.folder, output)
    if stage == "clip" or new:
        raise ValueError(
            f"'{model.folder}' is a Karlo: its prior, decoder and upsampler can be trained on (start = "
            '"base"), but neither its CLIP, which all of them rest on, nor new nets in their place.'
        )


def write_trained(base: Path, output: Path, part: TrainedPart) -> None:
    """Write into `output` what it lacks of the base's files, the part's weights, and the index.

    Raises:
        CheckpointError: the reader would refuse what was written; there is no index then.
    """
    write_copy(base, output, _components_of(part), lambda index: check_folder(output, part.dtype, index))


def _components_of(part: TrainedPart) -> dict[str, list[Entry]]:
    return {
        name: [
            trained_entry(names.renamed(key.removeprefix(prefix), rules), tensor, part.dtype)
            for key, tensor in part.tensors.items()
            if key.startswith(prefix)
        ]
        for name, (prefix, rules) in COMPONENTS[part.stage].items()
    }
