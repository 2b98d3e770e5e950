"""Which format and family a model folder is of, by its index and by keys; names of weight files say nothing."""

import json
from pathlib import Path
from typing import Any

import torch

from ..clip.tokenizer import CONVENTIONS
from ..models import PartReader
from ..weights.files import CheckpointError
from .karlo.reader import PIPELINES, KarloFolder
from .native.reader import FORMAT, INDEX, NativeFolder


def reader_of(folder: Path, dtype: torch.dtype, conventions: str = "native") -> PartReader:
    """What reads the parts of the model in `folder`.

    Raises:
        CheckpointError: the folder holds no model of a known format.
        ValueError: the conventions are unknown.
    """
    if conventions not in CONVENTIONS:
        raise ValueError(f"unknown conventions {conventions!r}; known: {', '.join(CONVENTIONS)}")
    if not (folder / INDEX).exists() and (kakao := _kakao_files(folder, dtype, conventions)):
        return kakao
    index = read_any_index(folder)
    if "_class_name" not in index:
        return NativeFolder(folder, dtype)
    if index["_class_name"] not in PIPELINES:
        raise CheckpointError(
            f"'{folder / INDEX}' is of the pipeline '{index['_class_name']}', which is no supported unCLIP. "
            f"Supported are {', '.join(PIPELINES)}, and the format '{FORMAT}'."
        )
    return KarloFolder(folder, index, dtype, conventions)


def is_supported(folder: Path) -> bool:
    """Whether the index of `folder` is one that `reader_of` takes; no weights are touched."""
    try:
        index = read_any_index(folder)
    except CheckpointError:
        return False
    return index.get("format") == FORMAT or index.get("_class_name") in PIPELINES


def read_any_index(folder: Path) -> dict[str, Any]:
    """The folder's `model_index.json`, of whatever format.

    Raises:
        CheckpointError: there is none, or it is no JSON object.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"'{folder}' is no model folder: '{path}' cannot be read ({error}).") from error
    if not isinstance(index, dict):
        raise CheckpointError(f"'{path}' is not of the format '{FORMAT}': it holds no JSON object.")
    return index


def _kakao_files(folder: Path, dtype: torch.dtype, conventions: str) -> PartReader | None:
    from .karlo.kakao_reader import KakaoFolder, weight_files

    return KakaoFolder(folder, dtype, conventions) if weight_files(folder) else None
