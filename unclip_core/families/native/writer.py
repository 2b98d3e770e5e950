"""Writes this project's own model folder: one safetensors file per component, and last the index that names them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...models import UnclipModel
from ...weights.files import cast_weights, save_weights
from ..placing import copy_or_link
from ..registry import INDEX, TrainedPart
from ..statistics import STATISTICS
from .index import ModelIndex, read_index, write_index
from .parts import BUILDERS

UPSAMPLERS = ("upsampler", "second_upsampler")


def write_trained(base: UnclipModel | None, output: Path, part: TrainedPart) -> None:
    """Write the part into `output`, with the base's other components and settings; see `Family.write_trained`.

    Raises:
        CheckpointError: the reader would refuse the part, or a number is too large for its dtype; nothing is written.
    """
    path = output / f"{part.stage}.safetensors"
    cast = cast_weights(part.tensors, part.dtype, path, STATISTICS)
    BUILDERS[part.stage](part.family, cast, part.config, str(path))
    before, there = _index(None if base is None else base.folder), _index(output)
    save_weights(path, cast, part.config)
    components = _take_over(part, base, before, there, output) | {part.stage: f"{part.stage}.safetensors"}
    settings: dict[str, Any] = {
        stage: asdict(told) for index in (before, there) if index for stage, told in index.settings.items()
    }
    if part.settings is not None:
        settings[part.stage] = asdict(part.settings)
    write_index(output, part.family, components, settings)


def _take_over(
    part: TrainedPart, base: UnclipModel | None, before: ModelIndex | None, there: ModelIndex | None, output: Path
) -> dict[str, str]:
    """Copy the base's other components into `output` where it has none yet; returns all but the trained one.

    Prior and decoder of another CLIP are left behind: a new CLIP's embeddings mean nothing to them.
    """
    new = part.stage == "clip" and not part.locked
    fitting = set(UPSAMPLERS if new else ("clip", "prior", "decoder", *UPSAMPLERS)) - {part.stage}
    kept = {name: file for name, file in _components(there).items() if name in fitting}
    if base is None:
        return kept
    for name, file in _components(before).items():
        if name in fitting and name not in kept:
            kept[name] = f"{name}.safetensors"
            copy_or_link(base.folder / file, output / kept[name])
    return kept


def _components(index: ModelIndex | None) -> dict[str, str]:
    return index.components if index else {}


def _index(folder: Path | None) -> ModelIndex | None:
    return read_index(folder) if folder is not None and (folder / INDEX).is_file() else None
