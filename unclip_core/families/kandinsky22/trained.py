"""Writes a trained prior or decoder into a copy of its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...models import UnclipModel
from ..karlo import names as karlo_names
from ..registry import TrainedPart
from ..trained_folder import refuse_same_folder, trained_entry, write_copy
from .decoder_reader import UNET, DecoderFolder, decoder_key_map
from .prior_reader import PRIOR, PriorFolder
from .reader import KandinskyFolder

COMPONENTS = {
    "prior": (PRIOR, karlo_names.diffusers_key_map(karlo_names.PRIOR)),
    "decoder": (UNET, decoder_key_map),
}
"""The folder of each part that is trained, and where its keys stand there."""
BESIDE = {"masked": "an inpainting decoder, which sees an image with a hole", "hint": "a decoder that sees a depth map"}


def check_trainable(model: UnclipModel, stage: str, new: bool, output: Path) -> None:
    """See `Family.check_trainable`."""
    if stage not in COMPONENTS or new:
        raise ValueError(
            f"'{model.folder}' is a Kandinsky 2.2: its prior and its decoder can be trained on (start = \"base\"), but "
            "neither its CLIP, which both rest on, nor new nets in their place."
        )
    reader = model.reader
    own = {PriorFolder: "prior", KandinskyFolder: "decoder"}.get(type(reader))
    if own != stage:
        raise ValueError(f"'{model.folder}' holds a {own}: to train a {stage}, name the {stage}'s own folder as base.")
    if isinstance(reader, KandinskyFolder) and (beside := reader.own.reads_beside) is not None:
        raise ValueError(
            f"'{model.folder}' holds {BESIDE[beside]} beside the latents; only decoders of text to image are trained."
        )
    refuse_same_folder(model.folder, output)


def write_trained(base: Path, output: Path, part: TrainedPart) -> None:
    """Write into `output` what it lacks of the base's files, the part's weights, and the index.

    Raises:
        CheckpointError: the reader would refuse what was written; there is no index then.
    """
    name, key_map = COMPONENTS[part.stage]
    entries = [trained_entry(key_map(key).key, tensor, part.dtype) for key, tensor in part.tensors.items()]

    def check(index: Mapping[str, Any]) -> None:
        if part.stage == "prior":
            PriorFolder(output, index, part.dtype, "diffusers").check()
        else:
            DecoderFolder(output, index, part.dtype).check()

    write_copy(base, output, {name: entries}, check)
