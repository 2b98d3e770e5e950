"""`unclip convert`: any model whose family can, to a folder of safetensors."""

from collections.abc import Collection
from pathlib import Path

from ..listing import files_below
from ..output import say
from ..weights.files import DTYPES
from .detect import family_of
from .loading import load_model


def convert(source: str | Path, target: str | Path, dtype: str = "fp32", coded: Collection[str] = ()) -> Path:
    """Write the model in folder `source` to the new folder `target`, component after component.

    Args:
        source: the model's folder, such as kakaobrain's files, or a diffusers folder of .bin files.
        target: made; must not hold anything yet.
        dtype: "fp32", "fp16" or "bf16".
        coded: parts of a model in this project's own format, whose matrices are written in eight bits.

    Returns:
        The folder.

    Raises:
        CheckpointError: the source is no model that can be converted, lacks what any such model has, or is damaged;
            or the target is not empty. Nothing is left behind, as after all that follows.
        ValueError: the dtype is unknown.
        OSError: the disk is full.
    """
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}; known: {', '.join(DTYPES)}")
    if coded:
        return family_of(Path(source)).code(Path(source), Path(target), DTYPES[dtype], coded)
    model = load_model(source, DTYPES[dtype], conventions="diffusers")
    return family_of(Path(source)).convert(model, Path(target), DTYPES[dtype])


def convert_and_report(source: str, target: str, dtype: str, coded: Collection[str] = ()) -> None:
    """Run `convert` and print how much was written."""
    folder = convert(source, target, dtype, coded)
    files = [path for path in files_below(folder) if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    say(f"{folder}: {len(files)} files, {total / 1e9:.2f} GB")
