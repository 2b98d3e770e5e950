"""This project's own format as a family."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from ...models import PartReader, UnclipModel
from ..registry import Family, TrainedPart
from .index import FORMAT
from .reader import NativeFolder


class NativeFamily(Family):
    """Models that were trained here, bundled or people's own; each names the family of its embeddings itself."""

    name = "native"
    formats = (f"the format '{FORMAT}'",)
    states_settings = True

    def detect(self, folder: Path, index: Mapping[str, Any] | None) -> bool:
        """Detect by the index's format; an index that names neither format nor pipeline is refused by the reader."""
        return index is not None and (index.get("format") == FORMAT or "_class_name" not in index)

    def read(self, folder: Path, dtype: torch.dtype, conventions: str) -> PartReader:
        """Return a `NativeFolder`; there is one convention only."""
        return NativeFolder(folder, dtype)

    def code(self, folder: Path, target: Path, dtype: torch.dtype, parts: Collection[str]) -> Path:
        """See `Family.code`."""
        from .coding import code

        return code(folder, target, dtype, parts)

    def check_trainable(self, model: UnclipModel, stage: str, new: bool, output: Path) -> None:
        """Everything can be trained, new nets in place of the base's too."""

    def write_trained(self, base: UnclipModel | None, output: Path, part: TrainedPart) -> None:
        """As one file more in `output`, or in place of the one that is there; the index names it."""
        from .writer import write_trained

        write_trained(base, output, part)


FAMILY = NativeFamily()
