"""Writes a model folder anew, with the matrices of some parts in eight bits."""

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ...weights.files import CheckpointError, cast_weight, load_weights, save_weights
from ...weights.folders import whole_folder
from ...weights.rows8 import SCALE, code_rows
from ..registry import INDEX
from ..statistics import STATISTICS
from .index import read_index, write_index
from .reader import NativeFolder


def code(folder: Path, target: Path, dtype: torch.dtype, parts: Collection[str]) -> Path:
    """Write the model; see `Family.code`.

    Raises:
        CheckpointError: the folder is damaged or lacks one of the parts, a number is too large for `dtype`, or the
            target is not empty.
        OSError: the disk is full. Whatever fails, nothing is left behind.
    """
    index = read_index(folder)
    if unknown := sorted(set(parts) - set(index.components)):
        raise CheckpointError(f"'{folder}' has no part {unknown}; it has {sorted(index.components)}.")
    reader = NativeFolder(folder, torch.float32)
    for part in sorted(reader.parts):
        getattr(reader, part)()  # refuses what could not be read again
    with whole_folder(target, INDEX) as aside:
        for component, file in index.components.items():
            tensors, config = load_weights(folder / file)
            kept = code_rows(tensors) if component in parts else tensors
            cast = {
                name: tensor if _stays(name, tensor) else cast_weight(tensor, dtype, name, folder / file)
                for name, tensor in kept.items()
            }
            save_weights(aside / f"{component}.safetensors", cast, config)
        files = {component: f"{component}.safetensors" for component in index.components}
        write_index(aside, index.family, files, {stage: asdict(told) for stage, told in index.settings.items()})
    return target


def _stays(name: str, tensor: Tensor) -> bool:
    """Whether a tensor keeps its dtype: counts, what is coded and its scales, and a prior's statistics."""
    return not tensor.is_floating_point() or name.endswith((SCALE, *STATISTICS))
