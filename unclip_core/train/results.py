"""The result of a training: a model folder that is loaded as it is, with the base's other parts in it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from torch import Tensor

from ..families.detect import family_of
from ..families.loading import load_model
from ..families.registry import INDEX, Family, TrainedPart, own_format
from ..models import StageSettings, UnclipModel
from ..weights.files import DTYPES
from .targets import Target

LOCK = ".writing.lock"
"""The file in a model folder that who writes there holds; it stays, and is empty."""


def write_result(
    stage: str,
    target: Target,
    base: UnclipModel | None,
    output: Path,
    averages: Mapping[str, Tensor],
    save_dtype: str,
    settings: StageSettings | None = None,
) -> None:
    """Write the trained part and whatever of the base is not there yet, the index last.

    Args:
        stage: of the part.
        target: the net and its configuration.
        base: the model that the result is built on.
        output: the model folder.
        averages: the trained parameters by name, in place of the net's own.
        save_dtype: of the weights on the disk, a key of `DTYPES`.
        settings: how the part is to be sampled by default, where the configuration says so.

    Raises:
        OSError: the disk is full; the folder is then what it was, or lacks only its index.
    """
    tensors = {**target.net.state_dict(), **averages}
    part = TrainedPart(stage, target.family, target.header, tensors, DTYPES[save_dtype], settings, bool(target.freeze))
    with output_lock(output):
        _writer(base).write_trained(base, output, part)


def output_lock(folder: Path) -> AbstractContextManager[object]:
    """Hold a model folder for one process's writing: two stages trained at once would lose each other's entry."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / LOCK)


def check_output(stage: str, target: Target, base: UnclipModel | None, output: Path) -> None:
    """Refuse to mix a result with parts in the output folder that it does not go with.

    Raises:
        ValueError: the folder holds another family or format, or a prior or decoder of the CLIP to be replaced.
    """
    if not (output / INDEX).is_file():
        return
    there = load_model(output)
    if family_of(output) is not _writer(base) or (there.family != target.family and stage != "clip"):
        raise ValueError(
            f"'{output}' holds a model of the family '{there.family}' already, and this training makes "
            f"a part of the family '{target.family}': name another folder."
        )
    replaced = stage == "clip" and not target.freeze
    old = [part for part in ("decoder", "prior") if replaced and there.has(part)]
    if old:
        raise ValueError(
            f"'{output}' holds the parts {old} of another CLIP, which a new one would leave without "
            "their embeddings: name another folder."
        )


def _writer(base: UnclipModel | None) -> Family:
    return own_format() if base is None else family_of(base.folder)
