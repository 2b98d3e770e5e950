"""Writes a trained part into a copy of its base's folder in diffusers' layout."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..listing import files_below
from ..weights.files import Entry, stream_weights, write_whole
from ..weights.tensors import PICKLES
from .detect import read_any_index
from .placing import copy_or_link
from .registry import INDEX
from .statistics import STATISTICS

WEIGHTS = "diffusion_pytorch_model.safetensors"


def refuse_same_folder(base: Path, output: Path) -> None:
    """Raise ValueError where a training would write into the folder of its base, or below it."""
    if base.resolve() == output.resolve():
        raise ValueError(f"'{base}' is base and output: name another folder as --output, so that the weights stay.")
    if base.resolve() in output.resolve().parents:
        raise ValueError(
            f"'{output}' lies in the folder of the base '{base}', where no model is looked for: name another folder as "
            "--output."
        )


def trained_entry(key: str, tensor: Tensor, dtype: torch.dtype) -> Entry:
    """A trained tensor as it is written under `key`; the statistics of CLIP's embeddings stay float32."""
    own = torch.float32 if key in STATISTICS else dtype
    return Entry(key, own, tuple(tensor.shape), lambda: tensor.detach())


def write_copy(
    base: Path,
    output: Path,
    components: Mapping[str, Sequence[Entry]],
    check: Callable[[Mapping[str, Any]], None],
) -> None:
    """Copy what `output` lacks of the base's model, write weights of some components, then the index.

    A base may hold more than its model: trainings of its own, what git keeps. Of the base are copied only the folders
    that its index names, and cards and licences beside the index.

    Args:
        base: a folder in diffusers' layout.
        output: the folder of the result.
        components: the weights of each component that was trained.
        check: has the reader of such folders check `output`, whose index will be what it is given.

    Raises:
        CheckpointError: the reader would refuse what was written; there is no index then.
        OSError: the disk is full; likewise.
    """
    index = read_any_index(base)
    for path in _model_files(base, index):
        inner = path.relative_to(base)
        if not (_is_weights(path) and _is_replaced(inner.parts[0], components, output)):
            copy_or_link(path, output / inner)
    for name, entries in components.items():
        stream_weights(output / name / WEIGHTS, entries)
    check(index)
    write_whole(output / INDEX, (base / INDEX).read_bytes())


def _model_files(base: Path, index: Mapping[str, Any]) -> Iterator[Path]:
    """The files of the components that the index names, and those beside it but weights, which no reader takes there.

    Hidden ones, and halves of downloads, are nobody's.
    """
    for entry in sorted(base.iterdir()):
        if entry.is_dir() and isinstance(index.get(entry.name), list):
            found = [path for path in files_below(entry) if path.is_file()]
        else:
            found = [entry] if entry.is_file() and entry.name != INDEX and not _is_weights(entry) else []
        for path in found:
            if path.suffix != ".part" and not any(part.startswith(".") for part in path.relative_to(base).parts):
                yield path


def _is_weights(path: Path) -> bool:
    return path.suffix in (".safetensors", *PICKLES) or (path.suffix == ".json" and ".index." in path.name)


def _is_replaced(component: str, written: Mapping[str, Sequence[Entry]], output: Path) -> bool:
    """Whether weights of the component are about to be written, or were written by an earlier training."""
    return component in written or (output / component / WEIGHTS).is_file()
