"""ECLIPSE's priors as a family: folders that hold a prior and nothing else, for the models of other families."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...models import PartReader
from ...weights.config_checks import read_table
from ..registry import CONFIG, Family, Source

KIND = "PriorTransformer"
HUB = "https://huggingface.co"


def _source(repository: str) -> Source:
    return Source(repository, f"not stated with the code, which is MIT's; see the card: {HUB}/{repository}")


class EclipseFamily(Family):
    """Priors of one pass (ECLIPSE-Community), each a `config.json` and its weights, without an index."""

    name = "eclipse"
    formats = (f"{KIND} (ECLIPSE)",)
    sources = {
        "eclipse-karlo": _source("ECLIPSE-Community/ECLIPSE_Karlo_Prior"),
        "eclipse-kandinsky-2-2": _source("ECLIPSE-Community/ECLIPSE_KandinskyV22_Prior"),
    }

    def detect(self, folder: Path, index: Mapping[str, Any] | None) -> bool:
        """Detect a folder without an index whose `config.json` is a prior's. Raises CheckpointError as the contract."""
        path = folder / CONFIG
        return index is None and path.is_file() and read_table(path).get("_class_name") == KIND

    def read(self, folder: Path, dtype: torch.dtype, conventions: str) -> PartReader:
        """Return an `EclipseFolder`."""
        from .reader import EclipseFolder

        return EclipseFolder(folder, dtype, conventions)


FAMILY = EclipseFamily()
