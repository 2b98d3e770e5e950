"""Find the family that a model folder belongs to."""

from pathlib import Path
from typing import Any

from ..weights.config_checks import read_table
from ..weights.files import CheckpointError
from .registry import INDEX, Family, families


def family_of(folder: Path) -> Family:
    """Return the family whose model `folder` holds.

    Raises:
        CheckpointError: the folder holds no model of a known family.
    """
    index = read_any_index(folder) if (folder / INDEX).exists() else None
    for family in families():
        if family.detect(folder, index):
            return family
    if index is None:
        read_any_index(folder)
    formats = ", ".join(name for family in families() for name in family.formats)
    kind = index.get("_class_name", index.get("format")) if index else None
    raise CheckpointError(
        f"'{folder / INDEX}' is of the kind {kind!r}, which is no supported unCLIP. Supported are {formats}."
    )


def is_supported(folder: Path) -> bool:
    """Tell whether `folder` is a model of a known family, by its index or, without one, by what else marks it.

    One that cannot be read is none: a list of models is to show the others.
    """
    try:
        index = read_any_index(folder) if (folder / INDEX).exists() else None
        return any(family.detect(folder, index) for family in families())
    except (CheckpointError, OSError):
        return False


def read_any_index(folder: Path) -> dict[str, Any]:
    """Read the folder's `model_index.json`, of whatever family.

    Raises:
        CheckpointError: there is none, or it is no JSON object.
    """
    path = folder / INDEX
    if not path.is_file():
        raise CheckpointError(f"'{folder}' is no model folder: there is no '{path}'.")
    return read_table(path)
